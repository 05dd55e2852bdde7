// The page's state, observable by topic. Nothing here knows how it is shown.

/**
 * @typedef {Record<string, any>} Form The fields of a request, null where the model's default
 *   holds, and `count`, `loras` [{name, scale}], `sweep` [{field, values}] beside them. Pictures
 *   (`image`, `mask`, ...) are data URLs. A seed is a number, or digits beyond 2^53.
 * @typedef {"form"|"jobs"|"history"|"capabilities"|"loras"|"selected"|"connection"|"compare"|"problem"} Topic
 */

/** Fields of a request that the page knows. All are null in a new form. */
export const FIELDS = [
  "prompt", "negative_prompt", "width", "height", "steps", "seed", "guidance", "cfg_normalization",
  "cfg_truncation", "schedule", "shift", "sampler", "noise", "latents", "prompt_embeds", "image",
  "fit", "strength", "mask", "mask_softness", "keep_unmasked", "outpaint", "focus", "nag",
  "variety", "variation_of", "variation_strength", "hires", "hires_strength", "control",
  "references",
];

/** Fields too big to be kept by the browser. */
export const BIG = ["image", "mask", "latents", "prompt_embeds", "control", "references"];

const SAVED = "form";

/** Return an empty form. */
export function emptyForm() {
  const fields = Object.fromEntries(FIELDS.map((name) => [name, null]));
  return { ...fields, prompt: "", count: 1, loras: [], sweep: [], keepSeed: false };
}

/** Return the store. `storage` keeps the form over a reload. */
export function createStore(storage = globalThis.localStorage) {
  const state = {
    /** @type {Form} */
    form: { ...emptyForm(), ...saved(storage) },
    /** @type {any[]} views of the jobs, newest first */
    jobs: [],
    /** @type {{images: any[], total: number, query: string}} newest first */
    history: { images: [], total: 0, query: "" },
    /** @type {any} the answer of /api/capabilities; null until it is known */
    capabilities: null,
    /** @type {any[]} the answer of /api/loras */
    loras: [],
    /** @type {{kind: "image"|"job", id: string}|null} what the stage shows; null: nothing yet */
    selected: null,
    /** @type {"connecting"|"open"|"lost"|"down"|"refused"} */
    connection: "connecting",
    /** @type {{left: any, right: any}|null} two images of the history; null: closed */
    compare: null,
    /** @type {{text: string, param: string|null}|null} why the last order was refused */
    problem: null,
  };
  const listeners = new Map();
  const changed = new Set();

  const flush = () => {
    const topics = [...changed];
    changed.clear();
    for (const topic of topics) {
      for (const listener of [...(listeners.get(topic) ?? [])]) listener(state[topic]);
    }
  };

  const store = {
    get form() { return state.form; },
    get jobs() { return state.jobs; },
    get history() { return state.history; },
    get capabilities() { return state.capabilities; },
    get loras() { return state.loras; },
    get selected() { return state.selected; },
    get connection() { return state.connection; },
    get compare() { return state.compare; },
    get problem() { return state.problem; },

    /** Replace the value of a topic. Listeners are called once, after the current task. */
    set(/** @type {Topic} */ topic, value) {
      if (state[topic] === value) return;
      state[topic] = value;
      if (!changed.size) queueMicrotask(flush);
      changed.add(topic);
      if (topic === "form") keep(storage, value);
    },

    /** Change some fields of the form: `store.edit({ width: 1024, height: 768 })`. */
    edit(/** @type {Form} */ fields) {
      const differs = Object.keys(fields).some((name) => state.form[name] !== fields[name]);
      if (differs) store.set("form", { ...state.form, ...fields });
    },

    /** Call a listener whenever one of the topics (separated by spaces) changes, until `signal`. */
    on(/** @type {string} */ topics, listener, /** @type {AbortSignal=} */ signal) {
      for (const topic of topics.split(" ")) {
        if (!listeners.has(topic)) listeners.set(topic, new Set());
        listeners.get(topic).add(listener);
        signal?.addEventListener("abort", () => listeners.get(topic).delete(listener));
      }
    },
  };
  return store;
}

/** Return a form as the body of /api/jobs and /api/estimate. */
export function toBody(/** @type {Form} */ form) {
  const body = {};
  for (const name of FIELDS) {
    const value = form[name];
    if (value !== null && value !== undefined && value !== "") body[name] = value;
  }
  body.prompt = form.prompt ?? "";
  if (form.prompt_embeds) delete body.prompt;
  if (form.count > 1 && !form.sweep.length) body.count = form.count;
  if (form.loras.length) body.loras = form.loras;
  if (form.sweep.length) body.sweep = form.sweep;
  return body;
}

function saved(storage) {
  try {
    return JSON.parse(storage.getItem(SAVED)) ?? {};
  } catch {
    return {};
  }
}

function keep(storage, form) {
  const small = Object.fromEntries(Object.entries(form).filter(([name]) => !BIG.includes(name)));
  if (form.image) for (const name of ["strength", "fit", "outpaint", "focus"]) delete small[name];
  try {
    storage.setItem(SAVED, JSON.stringify(small));
  } catch {
    // A full or forbidden storage costs the form after a reload, and nothing else.
  }
}
