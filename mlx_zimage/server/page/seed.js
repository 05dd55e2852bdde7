// Seeds: shown, kept, thrown anew, one up or down; and how many pictures a Draw makes.

import { randomSeed } from "./commands.js";
import { h, iconButton, slider } from "./dom.js";

const COUNTS = [1, 2, 4, 8, 16];
const MOST = 2n ** 64n - 1n;

export function mount(element, { store, t, signal, summary }) {
  const field = h("input", {
    type: "text", name: "seed", id: "seed", inputmode: "numeric", pattern: "[0-9]*", autocomplete: "off", placeholder: t("seed.random"),
    "aria-label": t("seed.seed"), onchange: () => keep(read(field.value)),
  });
  const lock = iconButton("lock", t("seed.keep"), () => store.edit({ keepSeed: !store.form.keepSeed }), { id: "seed-keep" });
  const counts = h("fieldset", { class: "segments" }, h("legend", { class: "hidden-text" }, t("seed.count")),
    COUNTS.filter((count) => count <= store.capabilities.limits.count).map((count) => h("label", {},
      h("input", { type: "radio", name: "count", value: String(count), onchange: () => store.edit({ count }) }),
      h("span", {}, String(count)))));
  const strength = slider({
    label: t("seed.strength"), min: 0.05, max: 1, step: 0.05, value: store.form.variation_strength ?? 0.3,
    show: (value) => value.toFixed(2), input: (variation_strength) => store.edit({ variation_strength }),
  });
  const origin = h("span", { class: "note" });
  const variation = h("div", { class: "stack" },
    h("div", { class: "row spread" }, origin,
      iconButton("close", t("seed.no_variation"), () => store.edit({ variation_of: null, variation_strength: null }))),
    strength);
  element.append(
    h("div", { class: "seed-row" }, field,
      iconButton("minus", t("seed.less"), () => move(-1)), iconButton("plus", t("seed.more"), () => move(1)),
      iconButton("dice", t("seed.throw"), () => keep(randomSeed()), { id: "seed-throw" }), lock),
    h("p", { class: "note", id: "seed-note" }),
    h("div", { class: "field" }, h("span", { "aria-hidden": "true" }, t("seed.count")), counts),
    variation);
  const note = element.querySelector("#seed-note");

  const keep = (seed) => store.edit(seed === null ? { seed: null, keepSeed: false } : { seed, keepSeed: true });
  const move = (by) => {
    const next = BigInt(store.form.seed ?? randomSeed()) + BigInt(by);
    keep(small(next < 0n ? 0n : next > MOST ? MOST : next));
  };

  function tell() {
    const { seed, keepSeed, count, variation_of, variation_strength } = store.form;
    if (document.activeElement !== field || read(field.value) !== seed) field.value = seed === null ? "" : String(seed);
    lock.setAttribute("aria-pressed", String(keepSeed));
    note.textContent = t(keepSeed ? "seed.kept_note" : "seed.random_note");
    for (const radio of counts.querySelectorAll("input")) radio.checked = Number(radio.value) === count;
    variation.hidden = variation_of === null;
    if (variation_of !== null) {
      origin.textContent = t("seed.variation_of", { seed: String(variation_of) });
      strength.set(variation_strength ?? 0.3);
    }
    const parts = [keepSeed ? String(seed) : t("seed.random")];
    if (count > 1) parts.push(`× ${count}`);
    if (variation_of !== null) parts.push(t("seed.varied"));
    summary(parts.join(" · "), keepSeed || count > 1 || variation_of !== null);
  }
  store.on("form", tell, signal);
  tell();
}

/** Return the seed that a text means: a number, digits where it is too long for one, or null. */
function read(text) {
  const digits = text.trim();
  if (!/^\d{1,20}$/.test(digits)) return null;
  const value = BigInt(digits);
  return small(value > MOST ? MOST : value);
}

const small = (value) => (value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value));
