// The prompt, Draw, and what the request will take.

import { debounce, h, icon, iconButton, toast } from "./dom.js";
import { toBody } from "./store.js";

const WAIT = 350; // ms of rest before an estimate is asked for
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);

/** The keys that draw, as this system writes them. */
export const DRAW_KEYS = MAC ? "⌘↩" : "Ctrl ↵";

export function mount(element, context) {
  const { store, commands, t, signal } = context;
  const prompt = h("textarea", {
    id: "prompt", name: "prompt", rows: 4, placeholder: t("compose.placeholder"), spellcheck: "true", autocomplete: "off",
    "aria-describedby": "problem", oninput: () => store.edit({ prompt: prompt.value }),
  });
  const label = h("span");
  const draw = h("button", { type: "submit", class: "button primary", id: "draw" }, label, h("kbd", { "aria-hidden": "true" }, DRAW_KEYS));
  const problem = h("p", { class: "error", id: "problem", role: "alert" });
  const examples = h("div", { class: "examples" });
  const memory = h("p", { class: "note memory", id: "memory" });
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); commands.draw(); } },
    h("label", { class: "hidden-text", for: "prompt" }, t("compose.title")), prompt, examples,
    h("div", { class: "draw-row" }, draw, enhancer(context)), problem, memory);
  element.replaceChildren(form);

  const tell = () => {
    const { form: now } = store;
    if (prompt.value !== now.prompt) prompt.value = now.prompt;
    const count = pictures(now);
    label.textContent = count > 1 ? t("compose.draw_many", { count }) : t("compose.draw");
    examples.hidden = Boolean(now.prompt) || Boolean(store.history.total);
    if (now.prompt && store.problem?.param === "prompt") store.set("problem", null);
  };
  const doubled = () => { memory.hidden = Boolean(store.problem) && memory.textContent === problem.textContent; };
  const complain = () => {
    problem.textContent = store.problem?.text ?? "";
    problem.hidden = !store.problem;
    doubled();
    for (const control of document.querySelectorAll("[name][aria-invalid]")) control.removeAttribute("aria-invalid");
    const name = store.problem?.param;
    if (name) document.querySelector(`[name="${CSS.escape(name)}"]`)?.setAttribute("aria-invalid", "true");
  };
  store.on("form history", tell, signal);
  store.on("problem", complain, signal);
  fillExamples(examples, context, (text) => { store.edit({ prompt: text }); prompt.focus(); });
  estimates(memory, context, doubled);
  tell();
  complain();
}

/** Return how many pictures a form asks for. */
export const pictures = (form) =>
  form.sweep.length ? form.sweep.reduce((cells, axis) => cells * axis.values.length, 1) : form.count;

function fillExamples(place, { store, t }, take) {
  const { vocabulary } = store.capabilities;
  const texts = t(vocabulary ? "compose.demo_examples" : "compose.examples").split("\n");
  const known = vocabulary
    ? texts.filter((text) => vocabulary.words.some((word) => text.includes(word)))
    : texts;
  if (vocabulary && !known.length) known.push(vocabulary.example);
  place.append(h("p", { class: "note" }, t(vocabulary ? "compose.demo_hint" : "compose.examples_hint", { draws: vocabulary?.draws })),
    ...known.map((text) => h("button", { type: "button", class: "chip", onclick: () => take(text) }, text)));
}

function enhancer({ store, api, t }) {
  if (!store.capabilities.features.enhance) return null;
  const button = iconButton("wand", t("compose.enhance"), async () => {
    if (!store.form.prompt.trim()) return;
    button.disabled = true;
    const before = store.form.prompt;
    try {
      const { prompt } = await api.enhance(before);
      store.edit({ prompt });
      toast(t("compose.enhanced"), { action: { label: t("history.undo"), run: () => store.edit({ prompt: before }) } });
    } catch (error) {
      toast(error.isOffline ? t("error.offline") : error.message);
    } finally {
      button.disabled = false;
    }
  }, { id: "enhance" });
  return button;
}

/** Keep a line that says what the form will take in memory, and what to do where that is too much. */
function estimates(line, { store, api, t, format, signal }, told) {
  let asked = null, known = "";
  const ask = debounce(async () => {
    const body = toBody(store.form);
    const key = JSON.stringify({ ...body, prompt: null, seed: null });
    if (key === known || signal.aborted) return;
    known = key;
    asked?.abort();
    asked = new AbortController();
    try {
      show(await api.estimate({ ...body, prompt: body.prompt || " " }, asked.signal));
    } catch (error) {
      if (error.name === "AbortError") return;
      known = "";
      line.className = error.isOffline ? "note memory" : "error memory";
      line.textContent = error.isOffline ? "" : error.message;
    }
    told();
  }, WAIT);

  function show({ peak, device, fits, message, largest }) {
    line.className = fits ? "note memory" : "error memory";
    if (fits) {
      line.textContent = t("memory.takes", { peak: format.bytes(peak), device: format.bytes(device) });
      return;
    }
    line.replaceChildren(t("memory.too_much", { peak: format.bytes(peak), device: format.bytes(device) }), " ");
    line.title = message;
    if (!largest) return;
    const size = format.size(largest.width, largest.height);
    line.append(h("button", { type: "button", class: "link", onclick: () => store.edit(largest) }, t("memory.use", { size })));
  }
  store.on("form", ask, signal);
  store.on("connection", () => { if (store.connection === "open") ask(); }, signal);
  ask();
}
