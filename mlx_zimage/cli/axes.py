"""The axes of a sweep, from options with several values each."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from os.path import exists
from typing import Any

from .. import Lora, SweepAxis, ZImage, size_for_aspect
from . import values
from .models import usage
from .order import prompts_from
from .parsing import UsageError
from .values import shown

MOST = 1000  # values of one option
SCALES = re.compile(r"(.+):([-+\d.,e\s]+)")


def axes_from(options: Mapping[str, Any]) -> list[SweepAxis]:
    """Return an axis for each option that is set, except the aspect's."""
    axes = []
    prompts = prompts_from(options["words"], options["prompt"])
    if not prompts:
        raise UsageError('a prompt is needed: sweep "a red fox" --steps 4,8')
    axes.append(SweepAxis.of_texts("prompt", prompts))
    if options["negative_prompt"] is not None:
        axes.append(SweepAxis.of_texts("negative_prompt", [options["negative_prompt"]]))
    axes.append(SweepAxis.of("seed", values.seeds(options["seed"], None) or [0]))
    for name, read in READERS.items():
        if options[name] is not None:
            axes.append(SweepAxis.of(name, read(name, options[name])))
    axes += _weights(options)
    if options["size"] is not None:
        axes.append(_sizes(options["size"]))
    return axes


def aspect_axis(zimage: ZImage, aspect: str, megapixels: str | None) -> SweepAxis:
    """Return the axis of the sizes of some aspects, by default in the area the model draws."""
    model = zimage.capabilities()
    areas = [model.width * model.height]
    if megapixels is not None:
        areas = [values.area(number) for number in _numbers("megapixels", megapixels)]
    sizes, labels = [], []
    for name in _texts("aspect", aspect):
        for area in areas:
            with usage():
                width, height = size_for_aspect(name, area, model.side_multiple)
            sizes.append({"width": width, "height": height})
            labels.append(f"{name} ({width}x{height})")
    return SweepAxis("size", tuple(sizes), tuple(labels))


def _texts(name: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"--{_option(name)} has an empty value: {shown(text)}")
    if len(parts) > MOST:
        raise UsageError(f"--{_option(name)} may have at most {MOST} values, not {len(parts):,}")
    return parts


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in _texts(name, text)]
    except ValueError:
        raise UsageError(
            f"--{_option(name)} must be numbers, as 0,0.5,1, not {shown(text)}"
        ) from None


def _integers(name: str, text: str) -> list[int]:
    numbers: list[int] = []
    for part in _texts(name, text):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise UsageError(
                f"--{_option(name)} must be whole numbers, as 4,8, or a range, as 1-4, "
                f"not {shown(text)}"
            ) from None
        if not 0 <= high - low < MOST:
            raise UsageError(
                f"--{_option(name)} must be a range that rises, of at most {MOST} values, "
                f"not {shown(part)}"
            )
        numbers += range(low, high + 1)
    return numbers


def _schedules(name: str, text: str) -> Sequence[Any]:
    """Return names of schedules; noise levels are one schedule."""
    levels = values.levels(text)
    return [levels] if isinstance(levels, tuple) else _texts(name, text)


READERS: dict[str, Callable[[str, str], Sequence[Any]]] = {
    "steps": _integers,
    "guidance": _numbers,
    "cfg_normalization": _numbers,
    "cfg_truncation": _numbers,
    "sampler": _texts,
    "schedule": _schedules,
    "shift": _numbers,
    "nag": _numbers,
    "variety": _numbers,
    "variation_of": _integers,
    "variation_strength": _numbers,
    "noise": _texts,
    "strength": _numbers,
    "fit": _texts,
    "mask_softness": _numbers,
    "hires": _numbers,
    "hires_strength": _numbers,
    "dtype": _texts,
}
"""The options that vary, and how their values are read."""


def _weights(options: Mapping[str, Any]) -> list[SweepAxis]:
    """Return the axes of the model and of its bits."""
    model = "turbo" if options["model"] is None else options["model"]
    models = [model] if exists(model) or not model else _texts("model", model)
    axes = [SweepAxis.of("model", models)]
    if options["q"] is not None:
        names = _texts("q", options["q"])
        bits = [None if name == "none" else values.bits(name) for name in names]
        labels = tuple(
            "as stored" if bit is None else f"{bit} bits" if isinstance(bit, int) else str(bit)
            for bit in bits
        )
        axes.append(SweepAxis("quantize", tuple({"quantize": bit} for bit in bits), labels))
    if options["lora"]:
        axes.append(_loras(options["lora"]))
    return axes


def _loras(texts: Sequence[str]) -> SweepAxis:
    """Return the axis of all combinations of some LoRAs' scales."""
    each = []
    for text in texts:
        match = SCALES.fullmatch(text)
        source, scales = (text, [1.0]) if match is None else (match[1], _numbers("lora", match[2]))
        with usage():
            each.append([Lora(source, scale) for scale in scales])
    choices = [*itertools.product(*each)]
    labels = [", ".join(f"{lora.name} {lora.scale:g}" for lora in choice) for choice in choices]
    return SweepAxis("loras", tuple({"loras": choice} for choice in choices), tuple(labels))


def _sizes(texts: Sequence[str]) -> SweepAxis:
    sizes = [values.size(part) for text in texts for part in _texts("size", text)]
    fields = tuple({"width": width, "height": height} for width, height in sizes)
    return SweepAxis("size", fields, tuple(f"{width}x{height}" for width, height in sizes))


def _option(name: str) -> str:
    return name.replace("_", "-")
