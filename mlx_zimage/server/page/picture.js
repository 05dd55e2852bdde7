// A picture to change: chosen, dropped or handed over; how much of it; and where.
//
// `form.image` and `form.mask` are data URLs. The mask is white where the picture is painted anew.

import { dataUrl, h, icon, iconButton, slider, toast } from "./dom.js";

const LONGEST = 2048; // pixels: more than a model draws is only slower to send
const TYPES = ["image/png", "image/jpeg", "image/webp"];
const STRENGTH = 0.6, STRENGTH_MASKED = 1; // the library's defaults
const NOTHING = { image: null, mask: null, mask_softness: null, outpaint: null, focus: null, strength: null, fit: null, keep_unmasked: null };
const MODES = ["whole", "region", "widen"];
const FITS = ["crop", "pad", "stretch"];
const FOCUS = 32; // pixels around a small region that the model sees

export function mount(element, { store, t, format, signal, summary }) {
  const file = h("input", { type: "file", accept: TYPES.join(","), class: "hidden-text", tabindex: "-1", "aria-label": t("picture.choose"), onchange: () => { take(file.files[0]); file.value = ""; } });
  const choose = h("button", { type: "button", class: "button", id: "picture-choose", onclick: () => file.click() }, icon("picture"), t("picture.choose"));
  const empty = h("div", { class: "picture-empty" }, h("p", { class: "note" }, t("picture.hint")), choose);
  const shown = h("img", { alt: t("picture.source"), draggable: "false" });
  const board = h("div", { class: "board" }, shown); // the brush and the handles lie upon the picture
  const size = h("p", { class: "note" });
  const head = h("div", { class: "row spread" }, size, h("div", { class: "row" },
    h("button", { type: "button", class: "link small", onclick: () => file.click() }, t("picture.replace")),
    iconButton("close", t("picture.remove"), () => { store.edit(NOTHING); choose.focus(); }, { id: "picture-remove" })));
  const modes = h("fieldset", { class: "segments" }, h("legend", { class: "hidden-text" }, t("picture.where")), MODES.map((mode) =>
    h("label", {}, h("input", { type: "radio", name: "picture-mode", value: mode, onchange: () => enter(mode) }), h("span", {}, t(`picture.${mode}`)))));
  const place = h("div", { class: "stack" }); // the mode's own controls
  const strength = slider({ label: t("picture.strength"), min: 0, max: 1, step: 0.05, value: STRENGTH, show: (value) => value.toFixed(2), input: (value) => store.edit({ strength: value }) });
  strength.querySelector("input").name = "strength";
  const ends = h("div", { class: "row spread note", "aria-hidden": "true" }, h("span", {}, t("picture.keep")), h("span", {}, t("picture.anew")));
  const fit = h("select", { name: "fit", onchange: () => store.edit({ fit: fit.value === "crop" ? null : fit.value }) }, FITS.map((value) => h("option", { value }, t(`picture.fit_${value}`))));
  const fitting = h("label", { class: "field" }, h("span", {}, t("settings.fit")), fit);
  const body = h("div", { class: "stack" }, head, board, modes, place, h("div", {}, strength, ends), fitting);
  element.append(file, empty, body);

  let mode = "whole", tool = null, known = null, natural = { width: 0, height: 0 };

  async function take(/** @type {Blob=} */ blob) {
    if (!blob) return;
    if (!TYPES.includes(blob.type)) { toast(t("drop.not_picture")); return; }
    store.edit({ ...NOTHING, image: await dataUrl(blob) });
  }

  /** Show the form's picture; a large one is first made smaller. */
  async function show() {
    const url = store.form.image;
    if (url === known) return;
    known = url;
    leave();
    if (!url) return;
    shown.src = url;
    try {
      await shown.decode();
    } catch {
      if (known === url) { store.edit(NOTHING); toast(t("drop.not_picture")); }
      return;
    }
    if (known !== url) return;
    natural = { width: shown.naturalWidth, height: shown.naturalHeight };
    if (Math.max(natural.width, natural.height) > LONGEST) { store.edit({ image: smaller(shown, LONGEST) }); return; }
    enter(store.form.mask ? "region" : store.form.outpaint ? "widen" : "whole");
    tell();
  }

  function leave() {
    tool?.remove();
    tool = null;
    place.replaceChildren();
  }

  /** Turn to a mode: what the others have set goes. */
  async function enter(next) {
    leave();
    mode = next;
    if (mode !== "region" && store.form.mask) store.edit({ mask: null, mask_softness: null, focus: null });
    if (mode !== "widen" && store.form.outpaint) store.edit({ outpaint: null });
    modes.querySelector(`[value="${mode}"]`).checked = true;
    if (mode === "whole") return;
    const context = { store, t, format, natural, shown };
    const made = mode === "region" ? (await import("./brush.js")).brush(context) : (await import("./outpaint.js")).outpaint(context);
    if (mode !== next || signal.aborted) { made.remove(); return; }
    tool = made;
    board.append(made.layer);
    place.append(made.controls, ...(mode === "region" ? [softness(), focus()] : []));
  }

  const softness = () => slider({ label: t("settings.mask_softness"), min: 0, max: 64, step: 4, value: store.form.mask_softness ?? 0, input: (value) => store.edit({ mask_softness: value || null }) });
  const focus = () => h("label", { class: "check" }, h("input", { type: "checkbox", checked: store.form.focus !== null, onchange: (event) => store.edit({ focus: event.target.checked ? FOCUS : null }) }), h("span", {}, t("picture.focus")));

  function tell() {
    const { form } = store;
    empty.hidden = Boolean(form.image);
    body.hidden = !form.image;
    if (form.image) {
      const usual = form.mask || form.outpaint ? STRENGTH_MASKED : STRENGTH;
      strength.set(form.strength ?? usual);
      fit.value = form.fit ?? "crop";
      fitting.hidden = !(form.width && form.height && form.width * natural.height !== form.height * natural.width);
      size.textContent = natural.width ? format.size(natural.width, natural.height) : "";
    }
    summary(form.image ? t(`picture.${form.mask ? "region" : form.outpaint ? "widen" : "whole"}`) : t("app.none"), Boolean(form.image));
    show();
  }

  const fold = element.closest("details") ?? element;
  fold.addEventListener("drop", (event) => {
    const dropped = event.dataTransfer?.files?.[0];
    if (dropped) { event.preventDefault(); take(dropped); }
  }, { signal });
  signal.addEventListener("abort", leave);
  store.on("form", tell, signal);
  tell();
}

/** Return an image as a PNG whose longer side has `longest` pixels. */
function smaller(image, longest) {
  const scale = longest / Math.max(image.naturalWidth, image.naturalHeight);
  const canvas = h("canvas", { width: Math.round(image.naturalWidth * scale), height: Math.round(image.naturalHeight * scale) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png");
}
