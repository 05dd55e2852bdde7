// A sweep: one or two fields that vary, drawn as one sheet; `form.sweep` is [{field, values}].

import { h, iconButton } from "./dom.js";

const MOST_AXES = 2;
const NUMBERS = { seed: "1-4", steps: "4, 8, 12", guidance: "0, 2, 4", strength: "0.4, 0.6, 0.8", shift: "3, 6", variety: "0, 0.5", hires_strength: "0.3, 0.5" };
const LORA = "lora:";
const MOST_RANGE = 100;

export function mount(element, { store, t, format, signal, summary }) {
  const rows = h("div", { class: "stack" });
  const add = h("button", { type: "button", class: "button", id: "sweep-add", onclick: () => axis() }, t("sweep.add"));
  const note = h("p", { class: "note", id: "sweep-note", role: "status" });
  const clear = h("button", { type: "button", class: "link small", onclick: () => { rows.replaceChildren(); write(); } }, t("sweep.clear"));
  element.append(h("p", { class: "note" }, t("sweep.about")), rows, h("div", { class: "row spread" }, add, clear), note);

  const fields = () => [
    ...Object.keys(NUMBERS).filter((name) => name !== "strength" || store.form.image),
    "sampler", "schedule", ...(choices(store.form.prompt) ? ["prompt"] : []),
    ...store.form.loras.map((one) => LORA + one.name),
  ];
  const name = (field) => field.startsWith(LORA) ? t("sweep.lora", { name: field.slice(LORA.length) }) : field === "seed" ? t("seed.title") : field === "prompt" ? t("compose.title") : t(`settings.${field}`);
  const example = (field) => ({
    sampler: store.capabilities.samplers.slice(0, 3).join(", "), schedule: "simple, beta",
  })[field] ?? (field.startsWith(LORA) ? "0, 0.5, 1" : NUMBERS[field] ?? "");

  /** Add a row for an axis; one that the form has already brings its values. */
  function axis(given = null) {
    const taken = [...rows.querySelectorAll("select")].map((one) => one.value);
    const first = given?.field ?? fields().find((field) => !taken.includes(field));
    const known = fields().includes(first) ? fields() : [...fields(), first];
    const select = h("select", { "aria-label": t("sweep.field"), onchange: () => { values.value = example(select.value); tellRow(); write(); } },
      known.map((field) => h("option", { value: field }, name(field))));
    select.value = first;
    const values = h("input", { type: "text", class: "input", "aria-label": t("sweep.values"), value: given ? given.values.join(", ") : example(first), oninput: write });
    const row = h("div", { class: "sweep-row" }, select, values, iconButton("close", t("sweep.remove", { name: name(first) }), () => { row.remove(); write(); }));
    const tellRow = () => { values.hidden = select.value === "prompt"; };
    rows.append(row);
    tellRow();
    if (!given) { write(); select.focus(); }
  }

  function read() {
    return [...rows.children].map((row) => {
      const field = row.querySelector("select").value;
      const text = row.querySelector("input").value;
      const values = field === "prompt" ? [store.form.prompt] : parse(text, field in NUMBERS || field.startsWith(LORA));
      row.querySelector("input").setAttribute("aria-invalid", String(!values.length));
      return { field, values };
    });
  }

  function write() {
    const axes = read();
    store.edit({ sweep: axes.every((one) => one.values.length) ? axes : [] });
    tell();
  }

  function tell() {
    const { sweep, prompt } = store.form;
    if (sweep.length && !rows.childElementCount) sweep.forEach(axis);
    if (!sweep.length && rows.childElementCount && read().every((one) => one.values.length)) rows.replaceChildren();
    if (sweep.some((one) => one.field === "prompt" && one.values[0] !== prompt)) { write(); return; }
    add.hidden = rows.childElementCount >= MOST_AXES;
    clear.hidden = !rows.childElementCount;
    const count = cells(sweep);
    const most = store.capabilities.limits.count;
    const each = secondsEach(store.jobs);
    note.textContent = !rows.childElementCount ? "" : !sweep.length ? t("sweep.unclear") : count > most ? t("sweep.too_many", { count, most })
      : [t("sweep.makes", { count }), each ? t("sweep.takes", { time: format.duration(each * count) }) : null].filter(Boolean).join(" · ");
    note.classList.toggle("danger", count > most);
    summary(sweep.length ? t("sweep.makes", { count }) : t("app.none"), sweep.length > 0);
  }
  store.on("form jobs", tell, signal);
  tell();
}

/** Return how many pictures a sweep makes. */
const cells = (sweep) => sweep.reduce((count, { field, values }) => count * (field === "prompt" ? choices(values[0]) || 1 : values.length), 1);

/** Return how many texts a prompt with {a|b} stands for; 0 where it has no choice. */
function choices(prompt) {
  const groups = [...(prompt ?? "").matchAll(/\{([^{}]*\|[^{}]*)\}/g)];
  return groups.length ? groups.reduce((count, [, group]) => count * group.split("|").length, 1) : 0;
}

/** Return the values that a text lists: 4, 8, 12 or 1-4; none where it cannot be read. */
function parse(text, isNumber) {
  const items = text.split(/[,，]/).map((item) => item.trim()).filter(Boolean);
  if (!isNumber) return items;
  const values = items.flatMap((item) => {
    const range = /^(\d{1,15})\s*-\s*(\d{1,15})$/.exec(item);
    if (!range) return [item === "" ? NaN : Number(item)];
    const [first, last] = [Number(range[1]), Number(range[2])];
    return last < first || last - first >= MOST_RANGE ? [NaN] : Array.from({ length: last - first + 1 }, (_, n) => first + n);
  });
  return values.every(Number.isFinite) ? values : [];
}

/** Return how long a picture of the last finished job took; 0 where none is known. */
function secondsEach(jobs) {
  const done = jobs.find((job) => job.state === "done" && job.count);
  return done ? (done.finished - done.started) / done.count : 0;
}
