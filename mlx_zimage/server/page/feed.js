// What happens at the server, by one EventSource, brought into the store.

import { parse } from "./api.js";

const RETRY = 2000; // ms, where the browser gives up by itself
const DOWN = 4000; // ms without a connection, after which the server counts as stopped

/**
 * Follow the server's events. `heard.image(image)` and `heard.removed(id)` are called for pictures,
 * `heard.began(job)` and `heard.ended(job)` for a job, `heard.again()` after a lost connection is
 * back. The promise that is returned holds as soon as nothing can be missed.
 */
export function follow(store, heard) {
  let source = null, timer = 0, down = 0, isReady = null;
  const ready = new Promise((resolve) => { isReady = resolve; });
  let wasOpen = false;

  const change = (id, fields) => {
    const jobs = store.jobs.map((job) => (job.id === id ? { ...job, ...fields } : job));
    store.set("jobs", jobs);
  };
  const find = (id) => store.jobs.find((job) => job.id === id);

  const takers = {
    snapshot({ jobs }) {
      store.set("jobs", jobs);
      clearTimeout(down);
      down = 0;
      store.set("connection", "open");
      if (wasOpen) heard.again();
      wasOpen = true;
      const busy = jobs.find((job) => job.state === "running");
      if (busy) heard.began(busy);
      isReady();
    },
    state({ type, job: id, ...view }) {
      const before = find(id);
      if (before) change(id, view);
      else store.set("jobs", [view, ...store.jobs]);
      const over = ["done", "failed", "cancelled"].includes(view.state);
      if (over && before?.state !== view.state) heard.ended(view);
      else if (view.state === "running" && before?.state !== "running") heard.began(view);
    },
    started: ({ job, phase, component, picture }) => change(job, { phase, component, picture }),
    finished() {},
    truncated: ({ job, lost, limit }) => change(job, { truncated: { lost, limit } }),
    hint: ({ job, message }) => change(job, { hint: message }),
    step({ job, number, total, seconds_left, picture, preview }) {
      const newest = preview ? { preview, previewOf: picture } : {};
      change(job, { phase: "denoise", step: number, steps: total, seconds_left, picture, ...newest });
    },
    result({ job: id, image }) {
      const job = find(id);
      if (!job) return;
      if (image.kind === "sheet") change(id, { sheet: image });
      else change(id, { images: [...job.images, image], step: 0, preview: null });
      heard.image(image);
    },
    removed: ({ id }) => heard.removed(id),
  };

  function open() {
    source = new EventSource("/api/events");
    for (const [type, take] of Object.entries(takers)) {
      source.addEventListener(type, (event) => take(parse(event.data)));
    }
    source.onerror = () => {
      if (store.connection === "open" || store.connection === "connecting") store.set("connection", "lost");
      down ||= setTimeout(() => store.set("connection", "down"), DOWN);
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(timer);
        timer = setTimeout(open, RETRY);
      }
    };
  }

  open();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && open());
  return ready;
}
