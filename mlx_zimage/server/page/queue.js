// The jobs that wait, and the one that runs where the stage shows something else.

import { h, iconButton } from "./dom.js";
import { phaseText } from "./stage.js";

export function createQueue({ store, commands, t, format, signal }) {
  const list = h("ol", { class: "queue", id: "queue", "aria-label": t("queue.title") });
  const rows = new Map();

  function row(job) {
    const note = h("span", { class: "note" });
    const show = h("button", { type: "button", class: "link text", onclick: () => store.set("selected", { kind: "job", id: job.id }) }, job.request.prompt || "…");
    const cancel = iconButton("close", t("queue.cancel", { prompt: job.request.prompt ?? "" }), () => commands.cancel(job.id));
    return { element: h("li", { dataset: { job: job.id } }, note, show, cancel), note };
  }

  function draw() {
    const isElsewhere = (job) => !(store.selected?.kind === "job" && store.selected.id === job.id);
    const jobs = store.jobs.filter((job) => job.state === "queued" || (job.state === "running" && isElsewhere(job)));
    jobs.sort((one, other) => (one.position ?? 0) - (other.position ?? 0));
    for (const id of [...rows.keys()]) if (!jobs.some((job) => job.id === id)) rows.delete(id);
    const elements = jobs.map((job) => {
      if (!rows.has(job.id)) rows.set(job.id, row(job));
      const { element, note } = rows.get(job.id);
      const text = job.state === "running" ? phaseText(job, t, format) : t("queue.position", { position: job.position ?? 1 });
      if (note.textContent !== text) note.textContent = text;
      return element;
    });
    const same = list.children.length === elements.length && elements.every((element, at) => list.children[at] === element);
    if (!same) list.replaceChildren(...elements);
    list.hidden = !elements.length;
  }
  store.on("jobs selected", draw, signal);
  draw();
  return list;
}
