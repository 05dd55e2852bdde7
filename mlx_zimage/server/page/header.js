// The bar: the model, the connection, and the page's language and appearance.

import { h, icon, iconButton } from "./dom.js";

const THEMES = ["auto", "light", "dark"];
const ICONS = { auto: "auto", light: "sun", dark: "moon" };

export function mount(element, { store, t, signal, speak }) {
  document.getElementById("model").textContent = store.capabilities?.model_name ?? "";
  const theme = iconButton("auto", "", () => {
    const next = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
    if (next === "auto") { localStorage.removeItem("theme"); delete document.documentElement.dataset.theme; }
    else { localStorage.setItem("theme", next); document.documentElement.dataset.theme = next; }
    tell();
  }, { id: "theme" });
  const tell = () => {
    const label = t(`app.theme_${chosen()}`);
    theme.replaceChildren(icon(ICONS[chosen()]));
    theme.setAttribute("aria-label", label);
    theme.title = label;
  };
  const other = document.documentElement.lang.startsWith("zh") ? "en" : "zh";
  element.replaceChildren(
    h("button", { type: "button", class: "button ghost", id: "language", lang: other, onclick: () => speak(other) }, t("app.language")),
    theme,
    h("button", { type: "button", class: "icon-button", id: "help-open", "aria-label": t("keys.title"), title: t("keys.title"), onclick: () => document.getElementById("help").showModal() }, icon("keyboard")));
  tell();

  const line = document.getElementById("connection");
  const connect = () => {
    const texts = { lost: "connection.lost", down: "connection.down" };
    const key = texts[store.connection];
    line.hidden = !key;
    line.dataset.state = store.connection;
    line.textContent = key ? t(key) : "";
  };
  store.on("connection", connect, signal);
  connect();
}

const chosen = () => document.documentElement.dataset.theme ?? "auto";
