// The picture alone, as large as the window: Space opens and closes it, arrows go on to the next.

import { h, iconButton } from "./dom.js";

export function mount(dialog, { store, library, commands, t, signal }) {
  const picture = h("img", { alt: "" });
  const close = iconButton("close", t("app.close"), () => dialog.close());
  dialog.setAttribute("aria-label", t("stage.title"));
  dialog.replaceChildren(picture, close);

  const { shown } = library;
  const tell = () => {
    const image = dialog.open && shown();
    if (!image || picture.alt === image.prompt && picture.src.endsWith(image.url)) return;
    picture.src = image.url;
    picture.alt = image.prompt;
  };
  dialog.onclick = (event) => { if (event.target === dialog || event.target === picture) dialog.close(); };
  dialog.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) commands.step(by);
    else if (event.key === " ") dialog.close();
    else return;
    event.preventDefault();
  };
  commands.view = () => {
    if (!shown()) return;
    dialog.showModal();
    tell();
  };
  store.on("selected", tell, signal);
}
