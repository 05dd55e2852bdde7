// The picture on the stage: one frame of the final size, in which a preview sharpens.

import { h, icon } from "./dom.js";

const SMALLEST = 640; // pixels across to which small pictures are enlarged
const SOFT = 0.3; // the blur that hides the latents in a preview, as a share of their size

/** Return the frame: `{element, size, preview, picture, wait, empty}`. */
export function createFrame({ store, t }) {
  const soft = h("img", { class: "soft", alt: "", decoding: "async" });
  const sharp = h("img", { class: "sharp", alt: "", decoding: "async" });
  const words = h("div", { class: "empty" });
  const element = h("figure", { class: "frame" }, soft, sharp, words);
  let shown = "", turn = 0, pixels = 1;

  const state = (name) => { element.dataset.state = name; words.hidden = name !== "empty"; };
  const clear = (image) => { image.removeAttribute("src"); image.hidden = true; };
  const off = () => { shown = ""; turn += 1; sharp.classList.remove("shown"); clear(sharp); sharp.alt = ""; };

  return {
    element,
    /** Give the frame the size of the picture that it has or will have. */
    size({ width, height }) {
      pixels = width;
      const scale = Math.max(1, SMALLEST / Math.max(width, height));
      element.style.setProperty("--ratio", String(width / height));
      element.style.setProperty("--most", `${Math.round(width * scale)}px`);
    },
    /** Show a picture that is not finished. */
    preview(url, prompt) {
      if (shown) off();
      state("preview");
      soft.hidden = false;
      soft.src = url;
      soft.classList.add("rough");
      const latents = pixels / store.capabilities.pixels_per_latent;
      element.style.setProperty("--blur", `${(element.clientWidth / latents) * SOFT}px`);
      soft.alt = t("stage.preview_of", { prompt });
    },
    /** Show a finished picture; what was there stays beneath until it can be drawn. */
    async picture(image) {
      if (shown === image.id) return;
      const isNext = element.dataset.state !== "preview";
      off();
      shown = image.id;
      const mine = turn;
      state("picture");
      if (isNext) {
        soft.hidden = false;
        soft.classList.remove("rough");
        soft.src = image.thumbnail;
      }
      soft.alt = "";
      sharp.hidden = false;
      sharp.alt = image.prompt;
      sharp.src = image.url;
      await sharp.decode().catch(() => {});
      if (mine === turn) sharp.classList.add("shown");
    },
    /** Show that a picture is to come. */
    wait() {
      off();
      clear(soft);
      state("wait");
    },
    empty(text) {
      off();
      clear(soft);
      state("empty");
      words.replaceChildren(icon("picture"), h("p", {}, text));
    },
  };
}
