// The settings that a newcomer does not need: those that the model has use for, at its defaults.

import { h, slider } from "./dom.js";
import { defaults } from "./recall.js";

const MORE = ["steps", "guidance", "negative_prompt", "nag", "cfg_normalization", "cfg_truncation", "sampler",
  "schedule", "shift", "variety", "hires", "hires_strength", "noise", "latents", "prompt_embeds"];
const GUIDED = ["guidance", "cfg_normalization", "cfg_truncation"];

export function mount(element, context) {
  const { store, t, format, signal, summary } = context;
  const about = store.capabilities;
  const usual = defaults(about);
  const guided = about.guidance > 0;
  const controls = [];

  /** A control is the element, the field that it stands for, and how it shows a value. */
  const add = (name, control, show) => controls.push({ name, control, show });

  const range = (name, options, usually = usual[name]) => {
    const control = slider({
      label: t(`settings.${name}`), value: usually, show: (value) => format.number(value), ...options,
      input: (value) => store.edit({ [name]: value === usually ? null : options.wrap ? options.wrap(value) : value }),
    });
    control.querySelector("input").name = name;
    add(name, control, (value) => control.set((options.unwrap ? options.unwrap(value) : value) ?? usually));
  };
  const choice = (name, values, usually) => {
    const select = h("select", { name, onchange: () => store.edit({ [name]: select.value === usually ? null : select.value }) },
      values.map((value) => h("option", { value }, value || t("settings.usual"))));
    add(name, field(name, select), (value) => {
      const wanted = typeof value === "string" ? value : value ? "…" : usually;
      if (![...select.options].some((option) => option.value === wanted)) select.append(h("option", { value: wanted }, wanted));
      select.value = wanted;
    });
  };
  const number = (name, attributes) => {
    const input = h("input", {
      type: "number", name, inputmode: "decimal", placeholder: t("settings.usual"), ...attributes,
      onchange: () => store.edit({ [name]: input.value === "" ? null : Number(input.value) }),
    });
    add(name, field(name, input), (value) => { if (document.activeElement !== input) input.value = value === null ? "" : String(value); });
  };
  const field = (name, control) => h("label", { class: "field" }, h("span", {}, t(`settings.${name}`)), control);

  range("steps", { min: 1, max: Math.max(50, about.steps), step: 1 });
  range("guidance", { min: 0, max: 12, step: 0.25 });
  const negative = h("textarea", { name: "negative_prompt", rows: 2, oninput: () => store.edit({ negative_prompt: negative.value || null }) });
  add("negative_prompt", field("negative_prompt", negative), (value) => { if (negative.value !== (value ?? "")) negative.value = value ?? ""; });
  range("nag", {
    min: 1, max: 11, step: 0.5, show: (value) => (value === 1 ? t("settings.off") : format.number(value)),
    wrap: (scale) => ({ ...store.form.nag, scale }), unwrap: (nag) => nag?.scale ?? nag,
  }, 1);
  choice("sampler", about.samplers ?? ["euler"], "euler");
  choice("schedule", ["", ...(about.schedules ?? [])], "");
  number("shift", { min: 0.01, max: 100, step: "any" });
  number("cfg_normalization", { min: 0, max: 1000, step: "any" });
  number("cfg_truncation", { min: 0, max: 1, step: "any" });
  range("variety", { min: 0, max: 1, step: 0.05, show: (value) => (value ? format.number(value) : t("settings.off")) }, 0);
  range("hires", { min: 1, max: 4, step: 0.25, show: (value) => (value === 1 ? t("settings.off") : `× ${format.number(value)}`) }, 1);
  range("hires_strength", { min: 0.05, max: 1, step: 0.05 }, 0.4);

  const others = h("p", { class: "note" });
  const reset = h("button", {
    type: "button", class: "link small", onclick: () => store.edit(Object.fromEntries(MORE.map((name) => [name, null]))),
  }, t("settings.reset"));
  const pair = h("div", { class: "pair" });
  for (const { name, control } of controls) {
    const small = ["sampler", "schedule", "shift", "cfg_normalization", "cfg_truncation"].includes(name);
    if (small) pair.append(control);
    else element.append(control);
    if (name === "nag") element.append(h("p", { class: "note", id: "negative-note" }, t("settings.negative_note")), pair);
  }
  element.append(others, h("div", {}, reset));
  const note = element.querySelector("#negative-note");

  function tell() {
    const { form } = store;
    const isSet = (name) => form[name] !== null && form[name] !== undefined;
    const guides = guided || isSet("guidance");
    const uses = {
      ...Object.fromEntries(GUIDED.map((name) => [name, guides])), nag: !guides || isSet("nag"), hires_strength: isSet("hires"),
    };
    for (const { name, control, show } of controls) {
      control.hidden = !(uses[name] ?? true) && !isSet(name);
      show(form[name] ?? null);
    }
    note.hidden = !isSet("negative_prompt") || Boolean(form.guidance ?? about.guidance) || isSet("nag");
    const unseen = ["noise", "latents", "prompt_embeds"].filter(isSet);
    others.hidden = !unseen.length;
    others.textContent = t("settings.also", { names: unseen.join(", ") });
    const changed = MORE.filter(isSet).length;
    reset.hidden = !changed;
    summary(changed ? t("settings.changed", { count: changed }) : t("settings.standard"), Boolean(changed));
  }
  store.on("form", tell, signal);
  tell();
}
