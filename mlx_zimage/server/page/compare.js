// Two pictures of the history under one slider, and the fields in which they differ.

import { h, iconButton } from "./dom.js";

const LEFT_OUT = ["image", "mask", "latents", "prompt_embeds", "noise"];

export function mount(dialog, { store, t, format, signal }) {
  const left = h("img", { alt: "" });
  const right = h("img", { alt: "", class: "compare-right" });
  const range = h("input", { type: "range", min: 0, max: 100, step: 1, value: "50", class: "compare-range", "aria-label": t("compare.slider"), oninput: () => at() });
  const frame = h("div", { class: "compare-frame" }, left, right, h("div", { class: "compare-line", "aria-hidden": "true" }), range);
  const names = h("div", { class: "row spread compare-names" }, h("p", {}), h("p", {}));
  const differences = h("dl", { class: "details" });
  const strip = h("ul", { class: "strip", "aria-label": t("compare.choose") });
  dialog.setAttribute("aria-label", t("compare.title"));
  dialog.replaceChildren(h("div", { class: "compare" },
    h("header", { class: "row spread" }, h("h2", {}, t("compare.title")), iconButton("close", t("app.close"), () => dialog.close())),
    frame, names, strip, differences));
  dialog.addEventListener("close", () => store.set("compare", null), { signal });

  const at = () => frame.style.setProperty("--at", `${range.value}%`);

  function tell() {
    const pair = store.compare;
    if (!pair) { if (dialog.open) dialog.close(); return; }
    for (const [img, one] of [[left, pair.left], [right, pair.right]]) {
      if (img.getAttribute("src") !== one.url) img.src = one.url;
      img.alt = one.prompt ?? t("history.untitled");
    }
    frame.style.setProperty("--ratio", String(pair.right.width / pair.right.height));
    [...names.children].forEach((place, side) => { place.textContent = t("stage.number", { seed: String([pair.left, pair.right][side].seed ?? "–") }); });
    strip.replaceChildren(...store.history.images.filter((one) => one.id !== pair.right.id).slice(0, 24).map((one) =>
      h("li", {}, h("button", { type: "button", class: "thumb", "aria-current": String(one.id === pair.left.id), "aria-label": t("compare.with", { prompt: one.prompt ?? "" }), onclick: () => store.set("compare", { ...pair, left: one }) },
        h("img", { src: one.thumbnail, alt: "" })))));
    const rows = differing(pair.left, pair.right);
    differences.replaceChildren(...(rows.length ? rows.flatMap(([name, a, b]) => [h("dt", {}, label(name, t)), h("dd", {}, `${shown(a, format)}  →  ${shown(b, format)}`)]) : [h("dt", {}, t("compare.same")), h("dd", {})]));
    if (!dialog.open) { range.value = "50"; dialog.showModal(); range.focus(); }
    at();
  }
  store.on("compare", tell, signal);
}

/** Return [name, left's, right's] for each field of the requests, and the model's, that differs. */
function differing(left, right) {
  const fields = ({ request, model, loras }) => ({ ...request, model, loras: (loras ?? []).map((one) => `${one.source ?? one.name} ${one.scale}`).join(", ") || null });
  const [a, b] = [fields(left), fields(right)];
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => !LEFT_OUT.includes(name));
  return names.filter((name) => JSON.stringify(a[name] ?? null) !== JSON.stringify(b[name] ?? null)).map((name) => [name, a[name], b[name]]);
}

function label(name, t) {
  const known = { prompt: "details.prompt", seed: "details.seed", model: "details.model", loras: "details.loras", width: "size.width", height: "size.height" }[name] ?? `settings.${name}`;
  return t(known);
}

function shown(value, format) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return value < 1e6 ? format.number(value) : String(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
