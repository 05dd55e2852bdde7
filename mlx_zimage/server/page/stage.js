// The stage: the picture that is drawn or was chosen, how far it is, and what can be done with it.

import { createActions } from "./actions.js";
import { h, iconButton } from "./dom.js";
import { createFrame } from "./frame.js";
import { createQueue } from "./queue.js";
import { sizeOf } from "./size.js";

const ORDER = ["load", "encode", "denoise", "decode"];

export function mount(element, context) {
  const { store, library, commands, t, format, signal } = context;
  const frame = createFrame(context);
  const actions = createActions(context);
  const queue = createQueue(context);
  const bar = h("progress", { max: 1, "aria-label": t("stage.progress") });
  const words = h("p", { id: "phase" });
  const cancel = h("button", { type: "button", class: "button", id: "cancel", onclick: () => commands.cancel(shownJob()?.id) }, t("app.cancel"));
  const status = h("div", { class: "status" }, words, cancel, bar);
  const problem = h("div", { class: "problem" });
  const hint = h("p", { class: "hint" });
  const strip = h("ul", { class: "strip", "aria-label": t("stage.siblings") });
  const under = h("div", { class: "under" }, status, problem, actions.element);
  const expand = iconButton("expand", t("picture_actions.view"), () => commands.view(), { class: "icon-button expand", id: "expand" });
  frame.element.append(expand);
  element.replaceChildren(h("div", { class: "canvas" }, frame.element), under, hint, strip, actions.details, queue);

  const shownJob = () => store.jobs.find((job) => store.selected?.kind === "job" && job.id === store.selected.id);
  const isOver = (job) => ["done", "failed", "cancelled"].includes(job.state);

  function draw() {
    const job = shownJob();
    const image = library.shown();
    const works = Boolean(job) && !isOver(job);
    status.hidden = !works;
    problem.hidden = true;
    hint.hidden = true;
    if (works) drawWork(job);
    else if (image) { frame.size(image); frame.picture(image); }
    else drawNothing(job);
    expand.hidden = works || !image;
    actions.show(works ? null : image);
    const about = job ?? store.jobs.find((one) => one.id === image?.job);
    drawHint(about);
    drawStrip(about, image);
    element.style.setProperty("--width", `${Math.round(frame.element.getBoundingClientRect().width)}px`);
  }

  function drawWork(job) {
    frame.size(sizeOf(job.request, store.capabilities));
    if (job.preview) frame.preview(job.preview, job.request.prompt);
    else if (job.images.length && job.state === "running") frame.picture(job.images.at(-1));
    else frame.wait();
    words.textContent = phaseText(job, t, format);
    const done = job.images.length * job.steps + (job.phase === "decode" ? job.steps : job.step);
    const all = Math.max(1, job.count * job.steps);
    if (job.state === "queued" || job.phase === "load") bar.removeAttribute("value");
    else bar.value = Math.min(1, done / all);
  }

  function drawNothing(job) {
    frame.size(sizeOf(store.form, store.capabilities));
    const hasFailed = job?.state === "failed";
    frame.empty(t(hasFailed ? "stage.failed" : "stage.empty"));
    problem.hidden = !hasFailed;
    if (hasFailed) problem.textContent = job.error?.message ?? "";
  }

  function drawHint(job) {
    const texts = [];
    const { vocabulary } = store.capabilities;
    if (job?.hint) texts.push(vocabulary ? t("hint.vocabulary", { draws: vocabulary.draws, example: vocabulary.example }) : job.hint);
    if (job?.truncated) texts.push(t("hint.truncated", job.truncated));
    hint.hidden = !texts.length;
    hint.textContent = texts.join(" ");
  }

  let stripped = "";
  function drawStrip(job, image) {
    const images = job ? [...job.images, job.sheet].filter(Boolean) : [];
    strip.hidden = images.length < 2;
    const key = images.map((one) => one.id).join();
    if (key !== stripped) {
      stripped = key;
      strip.replaceChildren(...images.map((one) => h("li", {},
        h("button", { type: "button", class: "thumb", dataset: { id: one.id }, onclick: () => store.set("selected", { kind: "image", id: one.id }) },
          h("img", { src: one.thumbnail, alt: t("stage.number", { seed: String(one.seed ?? "") }) })))));
    }
    for (const button of strip.querySelectorAll("button")) {
      if (button.dataset.id === image?.id) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  store.on("jobs selected history form", draw, signal);
  const watch = new ResizeObserver(() => element.style.setProperty("--width", `${Math.round(frame.element.getBoundingClientRect().width)}px`));
  watch.observe(frame.element);
  signal.addEventListener("abort", () => watch.disconnect());
  draw();
}

/** Say what a job is at: "Drawing · step 3 of 8 · 4 sec left". */
export function phaseText(job, t, format) {
  if (job.state === "queued") return t("queue.waits", { position: job.position ?? 1 });
  const phase = ORDER.includes(job.phase) ? job.phase : "load";
  const parts = [t(`phase.${phase}`)];
  if (phase === "denoise" && job.step) parts.push(t("phase.step", { number: job.step, total: job.steps }));
  if (job.count > 1) parts.push(t("phase.picture", { number: Math.min(job.count, job.images.length + 1), total: job.count }));
  if (job.seconds_left >= 1) parts.push(t("phase.left", { time: format.duration(job.seconds_left) }));
  return parts.join(" · ");
}
