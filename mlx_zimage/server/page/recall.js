// From a picture's request back to the form.

import { FIELDS, emptyForm } from "./store.js";

/** What the library fills in by itself: the form leaves these open. */
const USUAL = { sampler: "euler", noise: "torch-cpu", guidance: 0, fit: "crop" };

/**
 * Return the form's fields for a whole request: what it does not name goes back to the default.
 * `about` is the picture's prompt, seed and LoRAs, and its index in a request for several.
 */
export function takeAll(store, request, about = {}) {
  const empty = emptyForm();
  const form = Object.fromEntries(FIELDS.map((name) => [name, one(name, request, about) ?? empty[name]]));
  const usual = { ...USUAL, ...defaults(store.capabilities) };
  for (const [name, value] of Object.entries(usual)) if (form[name] === value) form[name] = null;
  return { ...form, count: 1, sweep: [], loras: chosen(about.loras ?? [], store.loras) };
}

/** Return the model's defaults for the fields that have one. */
export const defaults = ({ width, height, steps, guidance }) => ({ width, height, steps, guidance });

/** Return the form's fields without a picture to change. */
export const withoutPictures = () => ({
  image: null, mask: null, mask_softness: null, keep_unmasked: null, outpaint: null, strength: null,
  focus: null, fit: null,
});

/** A request for several pictures has lists; the form is for one of them. */
function one(name, request, about) {
  const value = request[name];
  const listed = ["prompt", "negative_prompt", "seed", "image", "mask"];
  if (!listed.includes(name) || !Array.isArray(value)) return value;
  return about[name] ?? value[about.index ?? 0] ?? value[0];
}

/** Return the LoRAs that are here under the names of their files. */
function chosen(loras, known) {
  const base = (name) => name.split(/[/\\]/).at(-1).replace(/\.safetensors$/, "");
  return loras.flatMap((lora) => {
    const here = known.find((one) => base(one.name) === base(lora.name ?? lora.source ?? ""));
    return here ? [{ name: here.name, scale: lora.scale }] : [];
  });
}
