// LoRAs: those of the server's folder, each with its scale; `form.loras` is [{name, scale}].

import { h, icon, iconButton, slider } from "./dom.js";

const FILTERED = 8; // LoRAs from which on a field filters them
const MOST = 1.5;

export function mount(element, { store, t, format, signal, summary }) {
  const chosen = h("ul", { class: "lora-chosen" });
  const filter = h("input", { type: "search", class: "input", placeholder: t("loras.filter"), "aria-label": t("loras.filter"), oninput: () => offer() });
  const rest = h("ul", { class: "lora-list", "aria-label": t("loras.available") });
  const none = h("p", { class: "note" }, t("loras.none"));
  element.append(chosen, filter, rest, none);
  let rows = "";

  const set = (name, scale) => store.edit({ loras: store.form.loras.map((one) => (one.name === name ? { name, scale } : one)) });
  const remove = (name) => store.edit({ loras: store.form.loras.filter((one) => one.name !== name) });
  const add = (name) => {
    store.edit({ loras: [...store.form.loras, { name, scale: 1 }] });
    queueMicrotask(() => chosen.querySelector("li:last-child input")?.focus());
  };
  const say = (word) => {
    const prompt = store.form.prompt.trimEnd();
    if (!prompt.includes(word)) store.edit({ prompt: prompt ? `${prompt}, ${word}` : word });
  };

  function row({ name, scale }) {
    const about = store.loras.find((one) => one.name === name);
    const words = about?.trigger_words ?? [];
    const control = slider({ label: name, min: 0, max: MOST, step: 0.05, value: scale, show: (value) => value.toFixed(2), input: (value) => set(name, value) });
    return h("li", { dataset: { name } }, control, iconButton("close", t("loras.remove", { name }), () => remove(name)),
      words.length ? h("div", { class: "row wrap lora-words" }, words.map((word) => h("button", { type: "button", class: "chip", title: t("loras.say"), onclick: () => say(word) }, word))) : null);
  }

  function offer() {
    const taken = new Set(store.form.loras.map((one) => one.name));
    const text = filter.value.trim().toLowerCase();
    filter.hidden = store.loras.length < FILTERED;
    none.hidden = store.loras.length > 0;
    rest.replaceChildren(...store.loras.filter((one) => !taken.has(one.name) && one.name.toLowerCase().includes(text)).map((one) =>
      h("li", {}, one.error
        ? h("p", { class: "note", title: one.error }, h("strong", {}, one.name), " ", one.error)
        : h("button", { type: "button", class: "button ghost", "aria-label": t("loras.add", { name: one.name }), onclick: () => add(one.name) },
          icon("plus"), h("span", { class: "lora-name" }, one.name), h("span", { class: "quiet small" }, facts(one, format))))));
  }

  function tell() {
    const { loras } = store.form;
    const names = JSON.stringify([loras.map((one) => one.name), store.loras.length]);
    if (names !== rows) {
      rows = names;
      chosen.replaceChildren(...loras.map(row));
      offer();
    }
    chosen.hidden = !loras.length;
    for (const { name, scale } of loras) chosen.querySelector(`[data-name="${CSS.escape(name)}"] .slider`)?.set(scale);
    summary(loras.length ? loras.map((one) => `${one.name.split("/").at(-1)} ${one.scale.toFixed(2)}`).join(", ") : t("app.none"), loras.length > 0);
  }
  store.on("form loras", tell, signal);
  tell();
}

/** What a LoRA is, in few words: its kind, rank and size. */
const facts = ({ kinds = [], ranks = [], size = 0 }, format) =>
  [kinds[0], ranks.length ? String(ranks.at(-1)) : null, format.bytes(size)].filter(Boolean).join(" · ");
