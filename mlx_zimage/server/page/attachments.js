// Pictures beside the prompt, for models that take them: one to follow, or several to refer to.

import { dataUrl, h, icon, iconButton, slider } from "./dom.js";

const MOST_REFERENCES = 4;

/** A picture whose lines, depth or pose the drawing follows: `form.control`. */
export const control = {
  mount(element, { store, t, format, signal, summary }) {
    const strength = slider({
      label: t("control.scale"), min: 0, max: 2, step: 0.05, value: store.form.control?.scale ?? 1, show: format.number,
      input: (scale) => store.edit({ control: { ...store.form.control, scale } }),
    });
    const list = pictures(element, t, 1, () => (store.form.control ? [store.form.control.image] : []), (images) => {
      const image = images.at(-1);
      store.edit({ control: image ? { scale: 1, ...store.form.control, image } : null });
    });
    element.append(strength);
    const tell = () => {
      list.tell();
      strength.hidden = !store.form.control;
      summary(store.form.control ? format.number(store.form.control.scale ?? 1) : t("app.none"), Boolean(store.form.control));
    };
    store.on("form", tell, signal);
    tell();
  },
};

/** Pictures that the prompt refers to: `form.references`. */
export const references = {
  mount(element, { store, t, signal, summary }) {
    const list = pictures(element, t, MOST_REFERENCES, () => store.form.references ?? [],
      (images) => store.edit({ references: images.length ? images : null }));
    const tell = () => {
      list.tell();
      const count = store.form.references?.length ?? 0;
      summary(count ? String(count) : t("app.none"), count > 0);
    };
    store.on("form", tell, signal);
    tell();
  },
};

/** Add a list of pictures with a button that chooses more. */
function pictures(element, t, most, read, write) {
  const file = h("input", {
    type: "file", accept: "image/png,image/jpeg,image/webp", multiple: most > 1, class: "hidden-text", tabindex: "-1", "aria-label": t("attachments.choose"),
    onchange: async () => {
      const added = await Promise.all([...file.files].map(dataUrl));
      file.value = "";
      write([...(most > 1 ? read() : []), ...added].slice(0, most));
    },
  });
  const list = h("ul", { class: "attachments" });
  const choose = h("button", { type: "button", class: "button", onclick: () => file.click() }, icon("picture"), t("attachments.choose"));
  element.append(list, h("div", {}, choose, file));
  return {
    tell() {
      const images = read();
      list.hidden = !images.length;
      choose.hidden = most > 1 && images.length >= most;
      list.replaceChildren(...images.map((url, at) => h("li", { class: "thumb" },
        h("img", { src: url, alt: t("attachments.number", { number: at + 1 }) }),
        iconButton("close", t("attachments.remove", { number: at + 1 }), () => write(read().filter((_, other) => other !== at))))));
    },
  };
}
