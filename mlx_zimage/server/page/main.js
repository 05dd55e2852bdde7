// The page put together.
//
// A tool is a module with `mount(element, context)`: it fills the element, reads `store.form`,
// writes it by `store.edit({...})`, and listens by `store.on("form", listener, signal)`. The
// context is
//   store, api        the page's state, the server
//   library, commands the pictures of the history; what the page can do (draw, change, ...)
//   t, format         words and numbers in the page's language
//   signal            aborted before the tool is mounted anew, in another language: give it to
//                     every listener outside of the element
//   summary(text, active)  what the fold's line says at its right, and whether it stands out
//   open()            unfolds the tool and scrolls to it
// A fold whose `data-feature` the model lacks stays hidden. A picture that is dropped or pasted
// where no tool takes it (`preventDefault`) comes as `store.edit({image: DATA_URL})`.

import { api } from "./api.js";
import * as attachments from "./attachments.js";
import { createCommands } from "./commands.js";
import * as compare from "./compare.js";
import * as compose from "./compose.js";
import { announce, h, toast } from "./dom.js";
import * as drop from "./drop.js";
import { follow } from "./feed.js";
import * as header from "./header.js";
import * as history from "./history.js";
import { createLibrary } from "./history-data.js";
import * as i18n from "./i18n.js";
import * as keys from "./keys.js";
import * as loras from "./loras.js";
import * as picture from "./picture.js";
import * as seed from "./seed.js";
import * as settings from "./settings.js";
import * as size from "./size.js";
import * as stage from "./stage.js";
import { createStore } from "./store.js";
import * as sweep from "./sweep.js";
import * as viewer from "./viewer.js";

const REGIONS = { "bar-actions": header, compose, stage, history, compare, viewer, drop, help: keys };
const FOLDS = {
  "fold-size": size, "fold-seed": seed, "fold-picture": picture, "fold-control": attachments.control,
  "fold-references": attachments.references, "fold-loras": loras, "fold-sweep": sweep, "fold-settings": settings,
};
const OPENING = 1000; // ms after which the page says that the model is being opened
const RETRY = 2000; // ms until a server that does not answer is asked again

const store = createStore();
const words = {}; // the language's `t` and `format`; replaced when it changes
const library = createLibrary({ store, api, words });
const commands = createCommands({ store, api, words, library });
let built = new AbortController();

/** Build the page in a language; once more when another one is chosen. */
async function speak(language) {
  Object.assign(words, await i18n.load(language));
  built.abort();
  built = new AbortController();
  i18n.translate(document, words);
  const context = { store, api, library, commands, ...words, signal: built.signal, speak: choose };
  for (const [id, module] of Object.entries(REGIONS)) module.mount(document.getElementById(id), context);
  for (const [id, module] of Object.entries(FOLDS)) mountFold(document.getElementById(id), module, context);
}

async function choose(language) {
  i18n.remember(language);
  await speak(language);
  document.getElementById("language").focus();
}

function mountFold(fold, module, context) {
  const { feature } = fold.dataset;
  fold.hidden = Boolean(feature) && !store.capabilities.features[feature];
  if (fold.hidden) return;
  const line = fold.querySelector("summary .value");
  const body = fold.querySelector(".fold-body");
  body.replaceChildren();
  const summary = (text, active = false) => {
    line.textContent = text;
    fold.toggleAttribute("data-active", active);
  };
  module.mount(body, { ...context, summary, open: () => commands.unfold(fold.id) });
}

const heard = {
  image: (image) => library.add(image),
  removed: (id) => library.drop(id),
  again: () => library.load(),
  began(job) {
    announce(words.t("announce.began", { prompt: job.request.prompt ?? "" }));
    const shown = store.selected;
    const was = store.jobs.find((one) => one.id === shown?.id);
    const isOver = shown?.kind === "job" && !["running", "queued"].includes(was?.state);
    if (!shown || isOver) store.set("selected", { kind: "job", id: job.id });
  },
  ended(job) {
    if (job.state === "done") announce(words.t("announce.done", { count: job.images.length }));
    if (job.state === "cancelled") announce(words.t("announce.cancelled"));
    const isShown = store.selected?.kind === "job" && store.selected.id === job.id;
    if (job.state === "cancelled" && isShown && !job.images.length) {
      const newest = store.history.images[0];
      store.set("selected", newest ? { kind: "image", id: newest.id } : null);
    }
    if (job.state !== "failed") return;
    const why = job.error?.message ?? words.t("stage.failed");
    if (isShown) announce(why);
    else toast(why, { seconds: 10 });
  },
};

function titles() {
  const job = store.jobs.find((one) => one.state === "running");
  document.title = job?.step ? `${job.step}/${job.steps} · Z-Image` : "Z-Image";
}

const greeted = greet();

async function greet() {
  Object.assign(words, await i18n.load(i18n.preferred()));
  i18n.translate(document, words);
}

/** Say in words, instead of the page, why there is none; null: there is one. */
function notice(key) {
  const place = document.getElementById("notice");
  place.hidden = !key;
  document.getElementById("app").hidden = Boolean(key);
  if (key) place.replaceChildren(h("h2", {}, words.t(`${key}_title`)), h("p", { class: "quiet" }, words.t(key)));
}

/** Ask until the server tells what its model can do; null: it wants a token. */
async function capabilities() {
  await greeted;
  const patience = setTimeout(() => notice("error.opening"), OPENING);
  for (;;) {
    try {
      const known = await api.capabilities();
      clearTimeout(patience);
      notice(null);
      return known;
    } catch (error) {
      clearTimeout(patience);
      const key = error.status === 401 ? "token" : error.isOffline ? "wait" : "model";
      notice(`error.${key}`);
      if (key === "token") return null;
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

async function start() {
  const known = await capabilities();
  if (!known) return;
  store.set("capabilities", known);
  await follow(store, heard);
  await library.load(); // after the events have begun, so that no picture is missed between them
  if (!store.selected && store.history.images.length) store.set("selected", { kind: "image", id: store.history.images[0].id });
  await speak(words.language);
  store.on("jobs", titles);
  if (known.features.loras) api.loras().then((all) => store.set("loras", all), () => {});
  addEventListener("pagehide", library.flush);
  document.documentElement.dataset.ready = "";
}

start();
