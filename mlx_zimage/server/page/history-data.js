// The pictures that the server keeps: loaded by pages, searched, and removed with a way back.

import { toast } from "./dom.js";

const PAGE = 60;
const UNDO_SECONDS = 6;

/** Return the library of pictures over the store's `history`. */
export function createLibrary({ store, api, words }) {
  const leaving = new Map(); // id: its image, while its removal may be undone
  let asked = null;

  const put = (changes) => store.set("history", { ...store.history, ...changes });
  const shown = (images) => images.filter((image) => !leaving.has(image.id));

  const library = {
    /** Load the newest pictures that match; an older search that is under way is dropped. */
    async load(query = store.history.query) {
      asked?.abort();
      asked = new AbortController();
      put({ query });
      try {
        const answer = await api.history({ limit: PAGE, q: query }, asked.signal);
        put({ images: shown(answer.images), total: answer.total });
      } catch (error) {
        if (error.name !== "AbortError" && !error.isOffline && error.status !== 401) toast(error.message);
      }
    },

    /** Load the next page, if there is one. */
    async more() {
      const { images, total, query } = store.history;
      if (!images.length || images.length >= total - leaving.size) return;
      asked?.abort();
      asked = new AbortController();
      try {
        const answer = await api.history({ before: images.at(-1).id, limit: PAGE, q: query }, asked.signal);
        const known = new Set(store.history.images.map((image) => image.id));
        const older = shown(answer.images).filter((image) => !known.has(image.id));
        put({ images: [...store.history.images, ...older], total: older.length ? answer.total : images.length });
      } catch (error) {
        if (error.name !== "AbortError") toast(error.isOffline ? words.t("error.offline") : error.message);
      }
    },

    /** Take a picture that has just been drawn. */
    add(image) {
      const { images, total, query } = store.history;
      if (images.some((one) => one.id === image.id)) return;
      if (query && !image.prompt.toLowerCase().includes(query.toLowerCase())) return;
      put({ images: [image, ...images], total: total + 1 });
    },

    /** Forget a picture that is gone. */
    drop(id) {
      const images = store.history.images.filter((image) => image.id !== id);
      if (images.length < store.history.images.length) put({ images, total: store.history.total - 1 });
    },

    /** Return the picture that the stage shows; null while one is drawn, or where there is none. */
    shown() {
      const { selected } = store;
      if (selected?.kind === "image") return library.find(selected.id) ?? null;
      const job = store.jobs.find((one) => one.id === selected?.id);
      const isOver = ["done", "failed", "cancelled"].includes(job?.state);
      return isOver ? job.sheet ?? job.images.at(-1) ?? null : null;
    },
    find: (id) => store.history.images.find((image) => image.id === id)
      ?? store.jobs.flatMap((job) => [...job.images, job.sheet]).find((image) => image?.id === id),

    /** Take a picture away, and remove it for good unless that is undone within some seconds. */
    remove(image) {
      const { images } = store.history;
      const at = images.findIndex((one) => one.id === image.id);
      const next = images[at + 1] ?? images[at - 1] ?? null;
      leaving.set(image.id, image);
      library.drop(image.id);
      store.set("selected", next && { kind: "image", id: next.id });
      toast(words.t("history.removed"), {
        seconds: UNDO_SECONDS,
        action: { label: words.t("history.undo"), run: () => back(image, at) },
        ended: (how) => how === "time" && leave(image),
      });
    },

    /** Remove at once what waits for its removal: the page is being left. */
    flush() {
      for (const id of leaving.keys()) api.remove(id).catch(() => {});
    },
  };

  function back(image, at) {
    leaving.delete(image.id);
    const images = [...store.history.images];
    images.splice(Math.max(0, at), 0, image);
    put({ images, total: store.history.total + 1 });
    store.set("selected", { kind: "image", id: image.id });
  }

  async function leave(image) {
    try {
      await api.remove(image.id);
    } catch (error) {
      if (error.status !== 404) {
        toast(error.isOffline ? words.t("error.offline") : error.message);
        back(image, 0);
      }
    }
    leaving.delete(image.id);
  }

  return library;
}
