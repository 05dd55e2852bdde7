// The picture's size: aspects near the model's own area, the other way round, or any numbers.

import { h, iconButton } from "./dom.js";

const ASPECTS = [[1, 1], [4, 3], [3, 2], [16, 9], [21, 9]];
const MOST = 8192; // pixels along a side
const NEAR = 0.005; // the weight of a deviation in the area, against one in the aspect

/** Return the size of about an area whose sides are multiples and whose aspect is nearest. */
export function sizeFor([across, down], area, multiple) {
  const ratio = across / down;
  let best = null;
  const most = Math.ceil(Math.sqrt(area * ratio * 1.2) / multiple) * multiple;
  for (let width = multiple; width <= most; width += multiple) {
    for (const round of [Math.floor, Math.ceil]) {
      const height = Math.max(multiple, round(width / ratio / multiple) * multiple);
      const share = (width * height) / area;
      if (share < 0.75 || share > 1.15) continue;
      const off = Math.abs(Math.log(width / height / ratio)) + NEAR * Math.abs(Math.log(share));
      if (!best || off < best.off) best = { off, width, height };
    }
  }
  return best ? { width: best.width, height: best.height } : { width: multiple, height: multiple };
}

/** Return the size that a form asks for. */
export const sizeOf = (form, { width, height }) => ({ width: form.width ?? width, height: form.height ?? height });

export function mount(element, { store, t, format, signal, summary }) {
  const about = store.capabilities;
  const multiple = about.side_multiple;
  const area = about.width * about.height;
  let upright = isUpright();

  const number = (name) => h("input", {
    type: "number", name, id: `size-${name}`, min: multiple, max: MOST, step: multiple, inputmode: "numeric",
    onchange: (event) => {
      const written = event.target.value === "" ? about[name] : Number(event.target.value);
      const value = Math.round(written / multiple) * multiple;
      store.edit({ [name]: Math.min(MOST, Math.max(multiple, value)) });
      event.target.value = String(sizeOf(store.form, about)[name]);
    },
  });
  const width = number("width"), height = number("height");
  const aspects = h("fieldset", { class: "segments aspects" }, h("legend", { class: "hidden-text" }, t("size.aspect")));
  element.append(
    aspects,
    h("div", { class: "row" },
      h("label", { class: "field" }, h("span", {}, t("size.width")), width),
      iconButton("swap", t("size.swap"), () => swap(), { class: "icon-button swap" }),
      h("label", { class: "field" }, h("span", {}, t("size.height")), height)),
    h("p", { class: "note" }, t("size.multiple", { multiple })));

  function isUpright() {
    const size = sizeOf(store.form, about);
    return size.height > size.width;
  }
  const turned = ([across, down]) => (upright ? [down, across] : [across, down]);

  function swap() {
    const size = sizeOf(store.form, about);
    upright = size.width === size.height ? !upright : size.width > size.height;
    store.edit({ width: size.height, height: size.width });
    fill();
  }

  function fill() {
    const legend = aspects.firstElementChild;
    aspects.replaceChildren(legend, ...ASPECTS.map((aspect) => {
      const [across, down] = turned(aspect);
      const size = sizeFor([across, down], area, multiple);
      const name = `${across}:${down}`;
      return h("label", { title: format.size(size.width, size.height) },
        h("input", { type: "radio", name: "aspect", value: name, onchange: () => store.edit(size), dataset: size }),
        h("span", {}, h("i", { class: "shape", style: { "--ratio": String(across / down) } }), name));
    }));
    tell();
  }

  function tell() {
    const size = sizeOf(store.form, about);
    if (size.width !== size.height && upright !== isUpright()) {
      upright = isUpright();
      fill();
      return;
    }
    for (const radio of aspects.querySelectorAll("input")) {
      radio.checked = Number(radio.dataset.width) === size.width && Number(radio.dataset.height) === size.height;
    }
    if (document.activeElement !== width) width.value = String(size.width);
    if (document.activeElement !== height) height.value = String(size.height);
    summary(format.size(size.width, size.height), size.width !== about.width || size.height !== about.height);
  }
  store.on("form", tell, signal);
  fill();
}
