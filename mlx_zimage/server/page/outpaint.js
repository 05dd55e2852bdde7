// Handles that widen a picture at its sides, and write `form.outpaint`: [left, top, right, bottom].

import { h } from "./dom.js";

const SIDES = ["left", "top", "right", "bottom"];
const ASPECTS = [[1, 1], [4, 3], [3, 2], [16, 9], [9, 16]];
const MOST = 2; // times the picture's side that a side may grow by

/** Return `{layer, controls, remove}`: a frame around the picture, and its controls. */
export function outpaint({ store, t, format, natural, shown }) {
  const { width, height } = natural;
  const step = store.capabilities.side_multiple;
  const most = (side) => snapped((side % 2 ? height : width) * MOST);
  const snapped = (pixels) => Math.max(0, Math.round(pixels / step) * step);
  const now = () => store.form.outpaint ?? [0, 0, 0, 0];
  const set = (side, pixels) => {
    const next = now().map((old, at) => (at === side ? Math.min(most(side), snapped(pixels)) : old));
    write(next);
  };
  /** Put the sides into the form. The size follows from them, so that none is named beside them. */
  const write = (next) => {
    store.edit(next.some(Boolean) ? { outpaint: next, width: null, height: null } : { outpaint: null });
    tell();
  };

  const handles = SIDES.map((name, side) => h("div", {
    class: `handle ${name}`, role: "slider", tabindex: "0", "aria-label": t(`outpaint.${name}`), "aria-valuemin": "0", "aria-valuemax": String(most(side)),
    "aria-orientation": side % 2 ? "vertical" : "horizontal",
    onkeydown: (event) => {
      const outward = ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"][side];
      const inward = ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"][side];
      const by = { [outward]: step, [inward]: -step, PageUp: step * 4, PageDown: -step * 4 }[event.key];
      if (event.key === "Home") set(side, 0);
      else if (by) set(side, now()[side] + by);
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
    onpointerdown: (event) => drag(event, side),
  }));
  const layer = h("div", { class: "outpaint" }, handles);
  const fields = SIDES.map((name, side) => h("input", { type: "number", min: 0, max: most(side), step, "aria-label": t(`outpaint.${name}`), onchange: (event) => set(side, Number(event.target.value) || 0) }));
  const total = h("p", { class: "note", role: "status" });
  const aspects = ASPECTS.map(([across, down]) => h("button", { type: "button", class: "chip", onclick: () => toAspect(across / down) }, `${across}:${down}`));
  const controls = h("div", { class: "stack" },
    h("div", { class: "outpaint-fields" }, SIDES.map((name, side) => h("label", { class: "field" }, h("span", { "aria-hidden": "true" }, t(`outpaint.${name}_short`)), fields[side]))),
    h("div", { class: "row wrap", role: "group", "aria-label": t("outpaint.to_aspect") }, aspects), total);

  /** Widen evenly, at two sides, until the whole has an aspect. */
  function toAspect(ratio) {
    const across = Math.max(0, height * ratio - width), down = across ? 0 : Math.max(0, width / ratio - height);
    const next = [across / 2, down / 2, across / 2, down / 2].map(snapped);
    write(next);
  }

  function drag(event, side) {
    event.preventDefault();
    const handle = handles[side];
    handle.focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
    const box = shown.getBoundingClientRect();
    const scale = width / box.width; // of the picture's pixels to the screen's, as the drag began
    const [from, start] = [side % 2 ? event.clientY : event.clientX, now()[side]];
    const sign = side < 2 ? -1 : 1;
    const move = (moved) => set(side, start + sign * ((side % 2 ? moved.clientY : moved.clientX) - from) * scale);
    const end = () => { handle.removeEventListener("pointermove", move); handle.removeEventListener("lostpointercapture", end); };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", end);
  }

  function tell() {
    const [left, top, right, bottom] = now();
    const [whole, high] = [width + left + right, height + top + bottom];
    const board = shown.parentElement;
    for (const [name, value] of [["--pad-left", left / whole], ["--pad-right", right / whole], ["--pad-top", top / whole], ["--pad-bottom", bottom / whole]]) board?.style.setProperty(name, `${value * 100}%`);
    now().forEach((pixels, side) => {
      if (document.activeElement !== fields[side]) fields[side].value = String(pixels);
      handles[side].setAttribute("aria-valuenow", String(pixels));
    });
    total.textContent = t("outpaint.total", { size: format.size(whole, high) });
  }
  queueMicrotask(tell);
  const remove = () => {
    layer.remove();
    for (const name of ["left", "right", "top", "bottom"]) shown.parentElement?.style.removeProperty(`--pad-${name}`);
  };
  return { layer, controls, remove };
}
