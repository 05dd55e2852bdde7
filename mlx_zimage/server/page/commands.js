// What the page can do, for its buttons, keys and drops alike.

import { announce, dataUrl, toast } from "./dom.js";
import { takeAll, withoutPictures } from "./recall.js";
import { toBody } from "./store.js";

const VARIED = 0.3; // how far "variations of this" go, and how many there are
const VARIATIONS = 4;

/** Return a seed that the page can show and count on. */
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** What a picture of the history says of itself, where its request is for several. */
const own = ({ prompt, seed, loras }) => ({ prompt, seed, loras });

export function createCommands({ store, api, words, library }) {
  const said = (error) => (error.isOffline ? words.t("error.offline") : error.message);
  const running = () => store.jobs.find((job) => job.state === "running");

  async function submit(form) {
    store.set("problem", null);
    try {
      const job = await api.draw(toBody(form));
      if (!store.jobs.some((one) => one.id === job.id)) store.set("jobs", [job, ...store.jobs]);
      const busy = running();
      if (!busy || busy.id === job.id) {
        store.set("selected", { kind: "job", id: job.id });
        document.getElementById("stage").scrollIntoView({ block: "nearest" });
      }
      else announce(words.t("queue.added", { position: job.position ?? 1 }));
      return job;
    } catch (error) {
      store.set("problem", { text: said(error), param: error.param });
      return null;
    }
  }

  const commands = {
    /** Draw what the form says; a new seed each time, unless it is kept. */
    draw() {
      const form = store.form;
      if (!form.prompt.trim() && !form.prompt_embeds) {
        store.set("problem", { text: words.t("compose.empty"), param: "prompt" });
        document.getElementById("prompt").focus();
        return null;
      }
      if (!form.keepSeed && !form.latents) store.edit({ seed: randomSeed() });
      return submit(store.form);
    },

    async cancel(id = running()?.id) {
      if (!id) return;
      try {
        await api.cancel(id);
      } catch (error) {
        if (error.status !== 404) toast(said(error));
      }
    },

    /** Draw some pictures near to one. */
    async variations(image) {
      const request = await whole(image);
      if (!request) return;
      const near = { variation_of: image.seed, variation_strength: VARIED, seed: randomSeed() };
      store.edit({ ...takeAll(store, request, own(image)), ...near, count: VARIATIONS, keepSeed: false, sweep: [] });
      submit(store.form);
    },

    /** Take a picture's settings into the form. */
    async useAll(image) {
      const request = await whole(image);
      if (!request) return;
      store.edit({ ...takeAll(store, request, own(image)), keepSeed: true });
      toast(words.t("use.all_done"));
    },
    usePrompt(image) {
      store.edit({ prompt: image.prompt });
      toast(words.t("use.prompt_done"));
    },
    useSeed(image) {
      store.edit({ seed: image.seed, keepSeed: true });
      toast(words.t("use.seed_done"));
    },

    /** Make a picture of the history the one to change. */
    async change(image) {
      try {
        const answer = await fetch(image.url);
        await commands.changeFile(await answer.blob());
      } catch {
        toast(words.t("error.offline"));
      }
    },
    async changeFile(/** @type {Blob} */ file) {
      store.edit({ ...withoutPictures(), image: await dataUrl(file) });
      commands.unfold("fold-picture");
    },

    async copy(image) {
      try {
        const blob = fetch(image.url).then((answer) => answer.blob());
        await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        toast(words.t("picture_actions.copied"));
      } catch {
        toast(words.t("picture_actions.not_copied"));
      }
    },

    remove: (image) => library.remove(image),

    /** Show the picture before (-1) or after (1) the one that is shown. */
    step(by) {
      const { images } = store.history;
      if (!images.length) return;
      const at = Math.max(0, images.findIndex((image) => image.id === library.shown()?.id));
      const next = images[Math.min(images.length - 1, Math.max(0, at + by))];
      store.set("selected", { kind: "image", id: next.id });
    },

    unfold(id) {
      const fold = document.getElementById(id);
      fold.open = true;
      fold.scrollIntoView({ block: "nearest" });
    },
  };

  /** Return a picture's request, with its pictures. */
  async function whole(image) {
    if (!image.request?.large?.length && !image.large?.length) return image.request;
    try {
      return (await api.image(image.id)).request;
    } catch (error) {
      toast(said(error));
      return null;
    }
  }
  return commands;
}
