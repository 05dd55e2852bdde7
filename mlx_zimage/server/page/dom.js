// Elements without markup: text is always text, so that a prompt cannot become part of the page.

/**
 * Return a new element: `h("button", { class: "button", onclick: draw }, "Draw")`. Attributes that
 * are functions listen, `dataset` and `style` (an object; custom properties too) are set one by
 * one, false and null leave an attribute out, and the children are elements, texts or lists.
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (key === "style") for (const [n, v] of Object.entries(value)) element.style.setProperty(n, v);
    else if (key === "value" || key === "checked") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Return an icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Return a button that shows an icon alone; its label is also its tooltip. */
export const iconButton = (name, label, onclick, attributes = {}) =>
  h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));

/**
 * Return a labelled slider. `input(value)` is called while it moves; `show(value)` says the value.
 * The element has `.set(value)`.
 */
export function slider({ label, min, max, step, value, input, show = String }) {
  const output = h("span", { class: "value", "aria-hidden": "true" }, show(value));
  const range = h("input", {
    type: "range", min, max, step, value: String(value), "aria-label": label,
    oninput: () => { tell(); input(Number(range.value)); },
  });
  const tell = () => {
    output.textContent = show(Number(range.value));
    range.setAttribute("aria-valuetext", output.textContent);
    range.style.setProperty("--at", `${((Number(range.value) - min) / (max - min)) * 100}%`);
  };
  const element = h("label", { class: "slider" }, h("span", { class: "name" }, label), output, range);
  element.set = (next) => { range.value = String(next); tell(); };
  tell();
  return element;
}

/** Return a function that calls `action` once, `wait` ms after it was last called. */
export function debounce(action, wait) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), wait);
  };
}

/** Say something once to a screen reader. */
export function announce(text) {
  document.getElementById("announce").textContent = text;
}

/** Show a short message that goes by itself; `action` {label, run} is offered with it. */
export function toast(text, { action = null, seconds = 5, ended = () => {} } = {}) {
  const place = document.getElementById("toasts");
  const box = h("div", { class: "toast" }, h("span", {}, text));
  const close = (how) => {
    if (!box.isConnected) return;
    clearTimeout(timer);
    box.remove();
    ended(how);
  };
  const timer = setTimeout(() => close("time"), seconds * 1000);
  if (action) {
    box.append(h("button", { type: "button", class: "link", onclick: () => { close("action"); action.run(); } }, action.label));
  }
  place.append(box);
  announce(text);
  return close;
}

/** Read a file as a data URL. */
export function dataUrl(/** @type {Blob} */ file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
