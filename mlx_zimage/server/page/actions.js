// What can be done with the picture on the stage, and all that is known of it.

import { h, icon, iconButton } from "./dom.js";

const SHOWN = ["negative_prompt", "steps", "guidance", "cfg_normalization", "cfg_truncation", "sampler", "schedule",
  "shift", "strength", "fit", "mask_softness", "outpaint", "focus", "nag", "variety", "variation_of",
  "variation_strength", "hires", "hires_strength", "noise"];

export function createActions({ store, commands, t, format, signal }) {
  let image = null;
  const act = (command) => () => image && command(image);
  const text = (label, name, command, attributes = {}) =>
    h("button", { type: "button", class: "button ghost", onclick: act(command), ...attributes }, icon(name), label);

  const use = menu(t("use.title"), [
    [t("use.all"), act(commands.useAll)], [t("use.prompt"), act(commands.usePrompt)], [t("use.seed"), act(commands.useSeed)],
  ], signal);
  const details = h("dl", { class: "details", id: "details" });
  details.hidden = true;
  const info = iconButton("info", t("picture_actions.details"), () => {
    details.hidden = !details.hidden;
    info.setAttribute("aria-expanded", String(!details.hidden));
  }, { "aria-expanded": "false", "aria-controls": "details", id: "info" });
  const download = h("a", { class: "icon-button", "aria-label": t("picture_actions.download"), title: t("picture_actions.download"), download: "" }, icon("download"));
  const canCopy = Boolean(navigator.clipboard?.write && globalThis.ClipboardItem);
  const features = store.capabilities.features;
  const compare = iconButton("compare", t("picture_actions.compare"), act((one) => store.set("compare", { left: other(store, one), right: one })), { id: "compare-open" });
  const vary = text(t("picture_actions.variations"), "layers", commands.variations, { id: "variations" });
  const caption = h("p", { class: "caption", id: "caption" });
  const row = h("div", { class: "actions", role: "group", "aria-label": t("stage.actions") },
    use, vary,
    features.image ? text(t("picture_actions.change"), "brush", commands.change, { id: "change" }) : null,
    h("div", { class: "end" }, compare, download, canCopy ? iconButton("copy", t("picture_actions.copy"), act(commands.copy), { id: "copy" }) : null, info,
      iconButton("trash", t("picture_actions.delete"), act(commands.remove), { id: "delete" })));
  const element = h("div", { class: "stack about" }, caption, row);

  function show(next) {
    element.hidden = !next;
    if (!next) { details.hidden = true; info.setAttribute("aria-expanded", "false"); image = null; return; }
    compare.hidden = !other(store, next);
    if (next === image) return;
    image = next;
    caption.textContent = image.prompt;
    download.href = `${image.url}?download=1`;
    use.hidden = image.kind === "sheet";
    vary.hidden = image.kind === "sheet" || image.seed === null || image.seed === undefined;
    details.replaceChildren(...facts(image, t, format).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }
  return { element, details, show };
}

/** Return a picture to compare with: the one that was drawn before, of any size. */
function other(store, image) {
  const { images } = store.history;
  const at = images.findIndex((one) => one.id === image.id);
  return images[at + 1] ?? images.find((one) => one.id !== image.id) ?? null;
}

function facts(image, t, format) {
  const { request } = image;
  const loras = (image.loras ?? []).map((lora) => `${lora.name ?? lora.source} ${format.number(lora.scale)}`);
  const rows = [
    [t("details.prompt"), image.prompt],
    [t("details.size"), format.size(image.width, image.height)],
    [t("details.seed"), image.seed === null || image.seed === undefined ? null : String(image.seed)],
    ...SHOWN.map((name) => [t(`settings.${name}`), shown(request?.[name], format)]),
    [t("details.loras"), loras.join("\n")],
    [t("details.model"), typeof image.model === "object" ? image.model?.model : image.model],
    [t("details.created"), format.date(image.created)],
  ];
  return rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
}

function shown(value, format) {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "object") return Object.entries(value).map(([name, one]) => `${name} ${one}`).join(", ");
  return typeof value === "number" && value < 1e6 ? format.number(value) : String(value);
}

/** Return a button that opens a menu of [label, action]. */
function menu(label, items, signal) {
  const list = h("div", { class: "popover", role: "menu", hidden: true },
    items.map(([name, run]) => h("button", { type: "button", role: "menuitem", class: "button ghost", onclick: () => { open(false); run(); } }, name)));
  const button = h("button", { type: "button", class: "button ghost", id: "use", "aria-haspopup": "menu", "aria-expanded": "false", onclick: () => open(list.hidden) }, icon("use"), label);
  const root = h("div", { class: "menu" }, button, list);
  const open = (isOpen) => {
    list.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) list.firstElementChild.focus();
  };
  root.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const rows = [...list.children];
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Escape") { open(false); button.focus(); }
    else if (to !== undefined) rows[(to + rows.length) % rows.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("pointerdown", (event) => { if (!root.contains(event.target)) open(false); }, { signal });
  root.addEventListener("focusout", (event) => { if (event.relatedTarget && !root.contains(event.relatedTarget)) open(false); });
  return root;
}
