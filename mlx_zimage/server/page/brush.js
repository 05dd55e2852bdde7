// A brush that paints the region to be changed upon a picture, and writes `form.mask`.

import { announce, h, iconButton, slider } from "./dom.js";

const MOST = 200; // strokes that can be undone; older ones stay
const SIZES = { min: 0.02, max: 0.5, step: 0.01, start: 0.12 }; // of the picture's longer side

/** Return `{layer, controls, remove}`: a canvas to lie upon the picture, and its controls. */
export function brush({ store, t, natural }) {
  const { width, height } = natural;
  const layer = h("canvas", { class: "brush", width, height, tabindex: "0", role: "img", "aria-label": t("brush.canvas") });
  const base = h("canvas", { width, height }); // what lies below the strokes that can be undone
  const ring = h("div", { class: "brush-ring", "aria-hidden": "true", hidden: true });
  layer.getContext("2d", { willReadFrequently: true }); // it is read after every stroke
  const strokes = [], undone = [];
  const longer = Math.max(width, height);
  let share = SIZES.start, erases = false, stroke = null;

  const size = slider({ label: t("brush.size"), ...SIZES, value: share, show: (value) => String(Math.round(value * longer)), input: (value) => { share = value; } });
  const eraser = h("button", { type: "button", class: "button", id: "brush-erase", "aria-pressed": "false", onclick: () => erase(!erases) }, t("brush.erase"));
  const undo = iconButton("undo", t("brush.undo"), () => back(), { id: "brush-undo" });
  const redo = iconButton("again", t("brush.redo"), () => forth(), { id: "brush-redo" });
  const invert = h("button", { type: "button", class: "button ghost", id: "brush-invert", onclick: () => act({ kind: "invert" }) }, t("brush.invert"));
  const whole = h("button", { type: "button", class: "button ghost", id: "brush-whole", onclick: () => act({ kind: "fill" }) }, t("brush.whole"));
  const clear = h("button", { type: "button", class: "button ghost", id: "brush-clear", onclick: () => act({ kind: "clear" }) }, t("brush.clear"));
  const controls = h("div", { class: "stack" }, size,
    h("div", { class: "row wrap" }, eraser, undo, redo, whole, invert, clear), h("p", { class: "note" }, t("brush.keys")));
  const wrapped = h("div", { class: "brush-layer" }, layer, ring);

  function erase(on) {
    erases = on;
    eraser.setAttribute("aria-pressed", String(on));
  }
  function act(one) {
    strokes.push(one);
    undone.length = 0;
    if (strokes.length > MOST) play(base.getContext("2d"), strokes.shift());
    write();
  }
  function back() {
    if (!strokes.length) return;
    undone.push(strokes.pop());
    write();
  }
  function forth() {
    if (!undone.length) return;
    strokes.push(undone.pop());
    write();
  }

  /** Draw all strokes, and put the mask into the form. */
  function write() {
    draw();
    const mask = exported(layer);
    store.edit({ mask });
    announce(t(mask ? "brush.painted" : "brush.empty"));
  }
  function draw() {
    const context = layer.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.drawImage(base, 0, 0);
    for (const one of [...strokes, ...(stroke ? [stroke] : [])]) play(context, one);
    undo.disabled = !strokes.length;
    redo.disabled = !undone.length;
  }

  /** Draw one stroke, or fill, clear or invert. Painted is opaque in the colour of masks. */
  function play(context, one) {
    context.save();
    context.fillStyle = context.strokeStyle = getComputedStyle(layer).getPropertyValue("--mask") || "#e0245e";
    if (one.kind === "fill") context.fillRect(0, 0, width, height);
    else if (one.kind === "clear") context.clearRect(0, 0, width, height);
    else if (one.kind === "invert") { context.globalCompositeOperation = "xor"; context.fillRect(0, 0, width, height); }
    else {
      if (one.erases) context.globalCompositeOperation = "destination-out";
      context.lineCap = context.lineJoin = "round";
      context.lineWidth = one.size;
      context.beginPath();
      context.moveTo(one.points[0].x, one.points[0].y);
      for (const { x, y } of one.points) context.lineTo(x, y);
      context.lineTo(one.points.at(-1).x + 0.01, one.points.at(-1).y);
      context.stroke();
    }
    context.restore();
  }

  const at = (event) => {
    const box = layer.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
  };
  function show(event) {
    const box = layer.getBoundingClientRect();
    const across = (share * longer * box.width) / width;
    ring.hidden = event.pointerType === "touch";
    for (const [name, value] of [["inline-size", across], ["block-size", across], ["left", event.clientX - box.left], ["top", event.clientY - box.top]]) ring.style.setProperty(name, `${value}px`);
  }
  layer.addEventListener("pointerdown", (event) => {
    if (event.button > 2) return;
    event.preventDefault();
    layer.focus({ preventScroll: true });
    layer.setPointerCapture(event.pointerId);
    stroke = { points: [at(event)], size: share * longer, erases: erases || event.button === 2 || event.altKey };
    draw();
  });
  layer.addEventListener("pointermove", (event) => {
    show(event);
    if (!stroke) return;
    for (const one of event.getCoalescedEvents?.() ?? []) stroke.points.push(at(one));
    stroke.points.push(at(event));
    draw();
  });
  const finish = () => {
    if (!stroke) return;
    const one = stroke;
    stroke = null;
    act(one);
  };
  layer.addEventListener("pointerup", finish);
  layer.addEventListener("pointercancel", finish);
  layer.addEventListener("pointerleave", () => { ring.hidden = true; });
  layer.addEventListener("contextmenu", (event) => event.preventDefault());
  const press = (event) => {
    const key = event.key.toLowerCase();
    if ((event.metaKey || event.ctrlKey) && key === "z") event.shiftKey ? forth() : back();
    else if (event.metaKey || event.ctrlKey || event.altKey) return;
    else if (key === "[" || key === "]") { share = Math.min(SIZES.max, Math.max(SIZES.min, share + (key === "]" ? 2 : -2) * SIZES.step)); size.set(share); }
    else if (key === "e") erase(!erases);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  for (const part of [layer, controls]) part.addEventListener("keydown", press);

  if (store.form.mask) shownMask(store.form.mask, width, height).then((mask) => { base.getContext("2d").drawImage(mask, 0, 0); draw(); }, () => {});
  draw();
  return { layer: wrapped, controls, remove: () => wrapped.remove() };
}

/** Return the mask as a PNG, white where something is painted; null where nothing is. */
function exported(layer) {
  const { width, height } = layer;
  const pixels = layer.getContext("2d").getImageData(0, 0, width, height);
  let painted = 0;
  for (let at = 0; at < pixels.data.length; at += 4) {
    const white = pixels.data[at + 3] >= 128 ? 255 : 0;
    painted += white ? 1 : 0;
    pixels.data.fill(white, at, at + 3);
    pixels.data[at + 3] = 255;
  }
  if (!painted) return null;
  const canvas = h("canvas", { width, height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.toDataURL("image/png");
}

/** Return a canvas with a mask's white in the colour of masks. */
async function shownMask(url, width, height) {
  const image = h("img", { src: url });
  await image.decode();
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data[at + 3] = pixels.data[at] >= 128 ? 255 : 0;
    [pixels.data[at], pixels.data[at + 1], pixels.data[at + 2]] = [224, 36, 94];
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
