// The keyboard, and the list of its keys.

import { DRAW_KEYS } from "./compose.js";
import { h } from "./dom.js";

export function mount(dialog, { commands, t, signal }) {
  const rows = [
    [DRAW_KEYS, "draw"], ["Esc", "cancel"], ["/", "search"], ["← →", "step"], ["Space", "view"], ["i", "details"], ["Del", "delete"], ["?", "keys"],
  ];
  dialog.setAttribute("aria-labelledby", "help-title");
  dialog.replaceChildren(
    h("h2", { id: "help-title" }, t("keys.title")),
    h("dl", { class: "keys" }, rows.map(([key, name]) => [h("dt", {}, key.split(" ").map((one) => [h("kbd", {}, one), " "])), h("dd", {}, t(`keys.${name}`))])),
    h("p", { class: "note help-note" }, t("keys.drop")),
    h("div", { class: "dialog-actions" }, h("button", { type: "button", class: "button", onclick: () => dialog.close() }, t("app.close"))));

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229 || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
      event.preventDefault();
      if (!event.repeat) commands.draw();
    } else if (event.key === "Escape" && !isSearching(event.target)) commands.cancel();
    else if (!event.metaKey && !event.ctrlKey && !event.altKey && !isWriting(event.target)) single(event);
  }, { signal });

  function single(event) {
    const run = {
      "?": () => dialog.showModal(),
      " ": () => commands.view(),
      "/": () => document.getElementById("search").focus(),
      i: () => document.getElementById("info").click(),
      ArrowLeft: () => commands.step(-1),
      ArrowRight: () => commands.step(1),
      Delete: () => document.getElementById("delete").click(),
      Backspace: () => document.getElementById("delete").click(),
    }[event.key];
    if (!run || (event.key === " " && isPressed(event.target))) return;
    event.preventDefault();
    run();
  }
}

/** Whether Space and Enter press what has the focus. */
const isPressed = (target) => target instanceof Element && Boolean(target.closest("button, summary, a"));

/** Whether Escape clears a search. */
const isSearching = (target) => target.type === "search" && target.value !== "";

/** Whether keys are meant for what has the focus. */
const isWriting = (target) => target instanceof Element
  && Boolean(target.closest("textarea, select, [contenteditable], [role=slider], input:not([type=checkbox], [type=button])"));
