// The pictures so far: a grid with search, one stop for the Tab key, arrows within.

import { debounce, h, icon } from "./dom.js";

export function mount(element, { store, library, t, format, signal }) {
  const count = h("span", { class: "quiet" });
  const search = h("input", {
    type: "search", id: "search", placeholder: t("history.search"), "aria-label": t("history.search"), value: store.history.query, autocomplete: "off",
    oninput: debounce(() => library.load(search.value.trim()), 200),
  });
  const grid = h("ul", { class: "grid", id: "grid", "aria-label": t("history.title") });
  const empty = h("p", { class: "note" });
  const more = h("button", { type: "button", class: "button", onclick: () => library.more() }, t("history.more"));
  const end = h("div", { class: "more" }, more);
  element.replaceChildren(
    h("header", {}, h("h2", {}, t("history.title"), " ", count), h("div", { class: "search" }, icon("search"), search)), empty, grid, end);

  const tiles = new Map();
  const choose = (id) => store.set("selected", { kind: "image", id });

  function tile(image) {
    const button = h("button", { type: "button", class: "thumb", dataset: { id: image.id }, title: image.prompt, tabindex: "-1", onclick: () => choose(image.id) },
      h("img", { src: image.thumbnail, alt: image.prompt || t("history.untitled"), loading: "lazy", decoding: "async" }));
    return h("li", {}, button, image.kind === "sheet" ? h("span", { class: "badge" }, t("history.sheet")) : null);
  }

  function draw() {
    const { images, total, query } = store.history;
    for (const id of [...tiles.keys()]) if (!images.some((image) => image.id === id)) { tiles.get(id).remove(); tiles.delete(id); }
    images.forEach((image, at) => {
      if (!tiles.has(image.id)) tiles.set(image.id, tile(image));
      const item = tiles.get(image.id);
      if (grid.children[at] !== item) grid.insertBefore(item, grid.children[at] ?? null);
    });
    count.textContent = total ? format.number(total) : "";
    empty.hidden = Boolean(images.length);
    empty.textContent = t(query ? "history.none_found" : "history.none", { query });
    element.querySelector(".search").hidden = !total && !query;
    end.hidden = images.length >= total;
    mark();
  }

  function mark() {
    let stop = null;
    const shown = library.shown()?.id;
    for (const button of grid.querySelectorAll("button")) {
      if (button.dataset.id === shown) { button.setAttribute("aria-current", "true"); stop = button; } else button.removeAttribute("aria-current");
      button.tabIndex = -1;
    }
    stop ??= grid.contains(document.activeElement) ? document.activeElement : grid.querySelector("button");
    if (stop) stop.tabIndex = 0;
  }

  grid.addEventListener("keydown", (event) => {
    const buttons = [...grid.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons[Math.min(buttons.length - 1, Math.max(0, to))];
    next.focus();
    choose(next.dataset.id);
  });

  const near = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) library.more(); }, { rootMargin: "400px" });
  near.observe(end);
  signal.addEventListener("abort", () => near.disconnect());
  store.on("history", draw, signal);
  store.on("selected jobs", mark, signal);
  draw();
}
