// The server's API. Every failure is an ApiError whose message can be shown as it is.

export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }

  /** Whether the server was not reached at all. */
  get isOffline() { return this.status === 0; }
}

// Seeds go up to 2^64, and JavaScript's numbers to 2^53: long ones are kept as text.
const LONG_IN = /(?<!\\)"(seed|variation_of)":\s*(\d{16,})/g;
const LONG_OUT = /(?<!\\)"(seed|variation_of)":"(\d{16,20})"/g;

/** Read JSON, with long seeds as text. */
export const parse = (text) => JSON.parse(text.replace(LONG_IN, '"$1":"$2"'));

/** Write JSON, with seeds that are text as numbers. */
export const stringify = (value) => JSON.stringify(value).replace(LONG_OUT, '"$1":$2');

async function ask(path, options = {}) {
  let answer, text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline");
  }
  if (answer.ok) return text ? parse(text) : null;
  throw failure(answer.status, text);
}

function failure(status, text) {
  try {
    const { message, code, param } = JSON.parse(text).error;
    return new ApiError(message, { status, code, param });
  } catch {
    return new ApiError(`${status}: ${text.slice(0, 200)}`, { status });
  }
}

const json = (method, body, signal) => ({
  method, body: stringify(body), headers: { "Content-Type": "application/json" }, signal,
});

export const api = {
  capabilities: () => ask("/api/capabilities"),
  loras: () => ask("/api/loras").then((answer) => answer.loras),
  /** Submit a form's body (see `toBody`); returns the job's view. */
  draw: (body) => ask("/api/jobs", json("POST", body)),
  jobs: () => ask("/api/jobs").then((answer) => answer.jobs),
  cancel: (id) => ask(`/api/jobs/${id}`, { method: "DELETE" }),
  estimate: (body, signal) => ask("/api/estimate", json("POST", body, signal)),
  /** A page of the history: `{images, total}`. */
  history: ({ before, limit = 60, q } = {}, signal) => {
    const query = new URLSearchParams({ limit: String(limit) });
    if (before) query.set("before", before);
    if (q) query.set("q", q);
    return ask(`/api/history?${query}`, { signal });
  },
  /** One image, with the whole request: pictures as data URLs. */
  image: (id) => ask(`/api/history/${id}`),
  remove: (id) => ask(`/api/history/${id}`, { method: "DELETE", keepalive: true }),
  /** What a picture's file says about how it was made. */
  metadata: (/** @type {Blob} */ file) => ask("/api/metadata", {
    method: "POST", body: file, headers: { "Content-Type": file.type || "image/png" },
  }),
  enhance: (prompt) => ask("/api/enhance", json("POST", { prompt })),
};
