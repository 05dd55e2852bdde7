// A picture that is dropped or pasted anywhere: drawn again as its file says, or changed.

import { h, toast } from "./dom.js";
import { takeAll } from "./recall.js";

const PICTURES = ["image/png", "image/jpeg", "image/webp"];

/** Take drops and pastes that no tool has taken; `dialog` asks what to do. */
export function mount(dialog, { store, api, commands, t, signal }) {
  const zone = document.getElementById("drop-zone");
  let depth = 0;
  const hasFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const cover = (isOn) => { zone.hidden = !isOn; if (!isOn) depth = 0; };
  const on = (type, listener) => addEventListener(type, listener, { signal });

  on("dragenter", (event) => { if (hasFile(event)) { depth += 1; cover(true); } });
  on("dragleave", (event) => { if (hasFile(event) && (depth -= 1) <= 0) cover(false); });
  on("dragover", (event) => { if (hasFile(event)) event.preventDefault(); });
  on("drop", (event) => {
    cover(false);
    if (event.defaultPrevented || !hasFile(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  on("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => PICTURES.includes(one.type));
    if (event.defaultPrevented || !file) return;
    event.preventDefault();
    take(file);
  });

  async function take(file) {
    if (!file || !PICTURES.includes(file.type)) { toast(t("drop.not_picture")); return; }
    const told = await api.metadata(file).catch((error) => error);
    if (told instanceof Error) {
      if (store.capabilities.features.image && !told.isOffline) commands.changeFile(file);
      else toast(told.isOffline ? t("error.offline") : told.message);
      return;
    }
    ask(file, told);
  }

  function ask(file, { request, index = 0, loras = [], differences = [], unread = [] }) {
    const url = URL.createObjectURL(file);
    const form = takeAll(store, request, { index, loras: loras.filter((lora) => lora.here !== false) });
    const missing = loras.filter((lora) => lora.here === false).map((lora) => lora.name);
    const notes = [
      ...differences, ...(missing.length ? [t("drop.missing", { names: missing.join(", ") })] : []),
      ...(unread.length ? [t("drop.unread", { names: unread.join(", ") })] : []),
    ];
    const close = (run) => () => { dialog.close(); run(); };
    const fill = () => store.edit({ ...form, keepSeed: true });
    dialog.setAttribute("aria-labelledby", "drop-title");
    dialog.replaceChildren(
      h("h2", { id: "drop-title" }, t("drop.title")),
      h("div", { class: "drop-preview" }, h("img", { src: url, alt: "" }),
        h("div", { class: "stack" }, h("p", {}, form.prompt), notes.map((note) => h("p", { class: "note" }, note)))),
      h("div", { class: "dialog-actions" },
        h("button", { type: "button", class: "button ghost", onclick: () => dialog.close() }, t("app.cancel")),
        store.capabilities.features.image ? h("button", { type: "button", class: "button", id: "drop-change", onclick: close(() => commands.changeFile(file)) }, t("drop.change")) : null,
        h("button", { type: "button", class: "button", id: "drop-use", onclick: close(() => { fill(); toast(t("use.all_done")); }) }, t("drop.use")),
        h("button", { type: "button", class: "button primary", id: "drop-again", onclick: close(() => { fill(); commands.draw(); }) }, t("drop.again"))));
    dialog.addEventListener("close", () => URL.revokeObjectURL(url), { once: true });
    dialog.showModal();
    dialog.querySelector("#drop-again").focus();
  }
}
