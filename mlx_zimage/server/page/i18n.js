// Words and numbers in the page's language. Texts are in i18n/*.json, by area and name.

export const LANGUAGES = { en: "English", zh: "中文" };
const SAVED = "language";

/** Return the language that was chosen, or the browser's. */
export function preferred() {
  const wanted = [localStorage.getItem(SAVED), ...navigator.languages];
  for (const tag of wanted) {
    const name = tag?.toLowerCase().split("-")[0];
    if (name in LANGUAGES) return name;
  }
  return "en";
}

/** Keep a choice of the language. */
export const remember = (language) => localStorage.setItem(SAVED, language);

const loaded = {};

/** Return `{language, t, format}` for a language. */
export async function load(language) {
  loaded[language] ??= await (await fetch(`/static/i18n/${language}.json`)).json();
  return words(language, loaded[language]);
}

function words(language, texts) {
  const tag = language === "zh" ? "zh-CN" : language;
  const plural = new Intl.PluralRules(tag);

  /** The text `area.name`, with `{name}` replaced. A text with forms is chosen by `count`. */
  const t = (key, values = {}) => {
    let text = key.split(".").reduce((node, part) => node?.[part], texts);
    if (typeof text === "object") text = text[plural.select(values.count)] ?? text.other;
    if (text === undefined) return key;
    return text.replace(/\{(\w+)\}/g, (whole, name) => {
      const value = values[name];
      return value === undefined ? whole : typeof value === "number" ? number(value) : value;
    });
  };

  const numbers = new Intl.NumberFormat(tag, { maximumFractionDigits: 3 });
  const number = (value) => numbers.format(value);
  const unit = (value, name, digits = 0) => new Intl.NumberFormat(tag, {
    style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits,
  }).format(value);

  const format = {
    number,
    /** Bytes: 5.9 GB. */
    bytes: (value) => {
      const steps = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
      const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
      const share = value / 1000 ** power;
      return unit(share, steps[power], power > 2 && share < 100 ? 1 : 0);
    },
    /** Seconds: 4 sec, 2 min, 1.5 hr. */
    duration: (seconds) => {
      if (seconds < 1) return unit(seconds, "second", 1);
      if (seconds < 90) return unit(Math.round(seconds), "second");
      if (seconds < 5400) return unit(Math.round(seconds / 60), "minute");
      return unit(seconds / 3600, "hour", 1);
    },
    /** A size in pixels: 1280 × 720. */
    size: (width, height) => `${width} × ${height}`,
    /** Unix seconds, as a date and a time. */
    date: (seconds) => new Intl.DateTimeFormat(tag, { dateStyle: "medium", timeStyle: "short" })
      .format(new Date(seconds * 1000)),
  };
  return { language, tag, t, format };
}

/** Put the texts of elements with `data-t` (content) and `data-label` (aria-label). */
export function translate(root, { t, tag }) {
  document.documentElement.lang = tag;
  for (const element of root.querySelectorAll("[data-t]")) {
    element.textContent = t(element.dataset.t);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
}
