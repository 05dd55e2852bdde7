"""Fields of AUTOMATIC1111's API, read into an order.

Clients of that API send what suits other models: 20 steps, a cfg_scale of 7, sizes and samplers
that are not known here. What cannot be taken as it is, is changed or left out, and the answer says
so: an error would leave their users without a picture.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageOps

from .. import Lora, LoraError
from .edits import data_url
from .failures import Refusal
from .orders import MOST_PICTURES, Order
from .pictures import check_picture, from_base64
from .service import Facts

SAMPLERS = {
    "Euler": "euler",
    "Euler a": "euler_ancestral",
    "DPM++ 2M": "dpmpp_2m",
    "Res multistep": "res_multistep",
    "TwinFlow": "twinflow",
}
"""Names that people know, by which the samplers are listed."""
SCHEDULES = {"Simple": "simple", "SGM Uniform": "sgm_uniform", "Normal": "normal", "Beta": "beta"}
AUTOMATIC = "Automatic"
LORA = re.compile(r"<lora:([^:<>]+)(?::([^:<>]+))?(?::[^<>]*)?>")
FITS = {0: "stretch", 1: "crop", 2: "pad", 3: "stretch"}
"""Our words for `resize_mode`; 3 resizes latents, which is the same picture stretched."""
STRENGTH = 0.75  # the published default of denoising_strength
HIRES = 2.0  # of hr_scale


@dataclass
class Reading:
    """The fields of one request while they are read."""

    body: Mapping[str, Any]
    facts: Facts
    honour: bool  # whether steps and cfg_scale are taken
    notes: list[str] = field(default_factory=list)  # what was changed or left out
    fields: dict[str, Any] = field(default_factory=dict)

    def number(self, name: str, default: Any, least: float, most: float) -> Any:
        """Return a field that must be a number; null is left out."""
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refusal(422, f"{name} must be a number", "invalid_value", name)
        if not least <= value <= most:
            raise Refusal(422, f"{name} must be {least:g} to {most:g}", "invalid_value", name)
        return value


def read_fields(
    body: Mapping[str, Any], facts: Facts, *, honour: bool, has_loras: bool, with_image: bool
) -> tuple[Order, list[str]]:
    """Return the order for a txt2img or img2img request, and notes on what was not taken."""
    reading = Reading(body, facts, honour)
    prompt = _text(body, "prompt")
    loras: tuple[Lora, ...] = ()
    if has_loras:
        prompt, loras = _loras(prompt)
    reading.fields["prompt"] = prompt
    _size(reading, with_image=with_image)
    for read in (_guidance, _sampling, _seed, _hires):
        read(reading)
    if with_image:
        _image(reading)
    batch = int(reading.number("batch_size", 1, 1, MOST_PICTURES))
    count = batch * int(reading.number("n_iter", 1, 1, MOST_PICTURES))
    if count > MOST_PICTURES:
        text = f"batch_size times n_iter may be at most {MOST_PICTURES}, not {count}"
        raise Refusal(422, text, "too_many_pictures", "batch_size")
    return Order(reading.fields, count, loras), reading.notes


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal(422, f"{name} must be a text", "invalid_value", name)
    return value


def _loras(prompt: str) -> tuple[str, tuple[Lora, ...]]:
    """Take LoRAs out of a prompt, where they are written as <lora:NAME:SCALE>."""
    try:
        loras = tuple(Lora(m[1], float(m[2] or 1)) for m in LORA.finditer(prompt))
    except (ValueError, LoraError) as error:
        raise Refusal(422, f"a LoRA in the prompt: {error}", "invalid_lora", "prompt") from error
    return " ".join(LORA.sub("", prompt).split()) if loras else prompt, loras


def _size(reading: Reading, *, with_image: bool) -> None:
    multiple = reading.facts.capabilities.side_multiple
    for name in ("width", "height"):
        side = reading.number(name, None if with_image else 512, 1, 8192)
        if side is None:
            continue
        near = max(multiple, round(side / multiple) * multiple)
        if near != side:
            reading.notes.append(f"{name} {side} was rounded to {near}")
        reading.fields[name] = near


def _guidance(reading: Reading) -> None:
    """Take steps, scale and negative prompt where the model has use for them."""
    uses_guidance = reading.facts.capabilities.guidance > 0
    takes = reading.honour or uses_guidance
    steps = reading.number("steps", None, 1, 1000)
    scale = reading.number("cfg_scale", None, 0, 1000)
    if takes:
        if steps is not None:
            reading.fields["steps"] = int(steps)
        if scale is not None:
            reading.fields["guidance"] = max(0.0, float(scale) - 1)
    else:
        given = [n for n, v in (("steps", steps), ("cfg_scale", scale)) if v is not None]
        if given:
            reading.notes.append(f"{' and '.join(given)} of other models were ignored")
    negative = _text(reading.body, "negative_prompt")
    guidance = reading.fields.get("guidance", reading.facts.capabilities.guidance)
    if negative and guidance > 0:
        reading.fields["negative_prompt"] = negative
    elif negative:
        reading.notes.append("negative_prompt has no effect without guidance and was ignored")


def _sampling(reading: Reading) -> None:
    known = reading.facts.capabilities.samplers
    for name, names, key in (
        (_text(reading.body, "sampler_name"), SAMPLERS, "sampler"),
        (_text(reading.body, "scheduler"), SCHEDULES, "schedule"),
    ):
        ours = {shown.lower(): own for shown, own in names.items()}
        own = ours.get(name.lower(), name.lower())
        options = known if key == "sampler" else tuple(SCHEDULES.values())
        if own in options:
            reading.fields[key] = own
        elif name and name != AUTOMATIC:
            reading.notes.append(f"{key} {name[:40]} is not known here; the default was used")


def _seed(reading: Reading) -> None:
    seed = reading.number("seed", -1, -1, 2**64 - 1)
    if seed >= 0:
        reading.fields["seed"] = int(seed)


def _hires(reading: Reading) -> None:
    if reading.body.get("enable_hr") is True:
        reading.fields["hires"] = float(reading.number("hr_scale", HIRES, 1, 8))
        strength = reading.number("denoising_strength", None, 0, 1)
        if strength is not None:
            reading.fields["hires_strength"] = float(strength)


def _image(reading: Reading) -> None:
    images = reading.body.get("init_images")
    if not isinstance(images, list) or len(images) != 1:
        text = "init_images must be a list of one picture"
        raise Refusal(422, text, "invalid_value", "init_images")
    fields, mask = reading.fields, reading.body.get("mask")
    fields["image"] = _picture(images[0], "init_images")
    fields["strength"] = float(reading.number("denoising_strength", STRENGTH, 0, 1))
    fields["fit"] = FITS[int(reading.number("resize_mode", 0, 0, 3))]
    if mask is not None:
        invert = reading.number("inpainting_mask_invert", 0, 0, 1)
        fields["mask"] = _picture(mask, "mask", invert=bool(invert))
        blur = reading.number("mask_blur", None, 0, 1000)
        if blur is not None:
            fields["mask_softness"] = float(blur)
        if reading.body.get("inpaint_full_res"):
            fields["focus"] = int(reading.number("inpaint_full_res_padding", 32, 0, 8192))


def _picture(value: Any, name: str, *, invert: bool = False) -> str:
    """Return a picture in base64, with or without a data URL's head, as a data URL."""
    data = from_base64(value, name)
    check_picture(data, name)
    return data_url(_inverted(data, name) if invert else data)


def _inverted(data: bytes, name: str) -> bytes:
    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data)) as image:
            ImageOps.invert(image.convert("L")).save(file, "PNG")
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise Refusal(422, f"{name} is damaged", "invalid_image", name) from error
    return file.getvalue()
