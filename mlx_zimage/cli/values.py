"""Values of options as they are typed: seeds, sizes, noise levels, bits."""

import re
import secrets
from typing import Any

from .parsing import UsageError

MAX_PICTURES = 1000
"""Pictures of one command, so that a slip as in --seed 1-99999999 is an error."""


def bits(q: str | None) -> Any:
    """Return --q as the library takes it: 4 for "4", names as they are."""
    return int(q) if q is not None and re.fullmatch("[0-9]{1,3}", q) else q


def seeds(values: list[str] | None, count: int | None) -> list[int] | None:
    """Return the seeds that --seed lists, or None where random ones are to be drawn."""
    if not values:
        return None
    if count is not None:
        raise UsageError(
            "--count draws random seeds and cannot be used with --seed; see --seed 1-4"
        )
    listed = [seed for value in values for item in value.split(",") for seed in _seeds(item)]
    if len(listed) > MAX_PICTURES:
        raise UsageError(f"--seed lists {len(listed)} pictures; the most is {MAX_PICTURES}")
    if len(set(listed)) < len(listed):
        raise UsageError("--seed makes one picture for each seed, and one is given twice")
    return listed


def size(value: str) -> tuple[int, int]:
    """Return the width and height that --size names."""
    match = re.fullmatch(r"([0-9]{1,9})(?:[xX×]([0-9]{1,9}))?", value)
    if match is None:
        raise UsageError(f"--size must be as 1024x768, or 1024 for a square, not {shown(value)}")
    return int(match[1]), int(match[2] or match[1])


def area(megapixels: float) -> int:
    """Return the pixels that --megapixels asks for."""
    if not 0.001 <= megapixels <= 16:
        raise UsageError(f"--megapixels must be from 0.001 to 16, not {megapixels:g}")
    return round(megapixels * (1 << 20))


def border(outpaint: str | None) -> list[int] | None:
    """Return the pixels that --outpaint adds at each side."""
    if outpaint is None:
        return None
    parts = outpaint.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) for part in parts):
        raise UsageError(
            "--outpaint must be four numbers of pixels (left, top, right, bottom), as 0,0,256,0, "
            f"not {shown(outpaint)}"
        )
    return [int(part) for part in parts]


def nag(text: str | None) -> dict[str, float] | None:
    """Return --nag: a scale, or a scale, tau and alpha."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3:
        raise UsageError(
            f"--nag must be a scale, as 3, or scale,tau,alpha, as 3,3.5,0.5, not {shown(text)}"
        )
    return dict(zip(("scale", "tau", "alpha"), numbers, strict=False))  # the rest have defaults


def margin(focus: str | None) -> int | None:
    """Return the margin in pixels that --focus asks for."""
    if focus is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", focus):
        raise UsageError(f"--focus must be a whole number of pixels, not {shown(focus)}")
    return int(focus)


def levels(schedule: str | None) -> str | tuple[float, ...] | None:
    """Return --schedule as the library takes it: noise levels as numbers, a name as it is."""
    try:
        return schedule and tuple(float(level) for level in schedule.split(","))
    except ValueError:
        return schedule


def guidance_of(guidance: float | None, cfg: float | None) -> float | None:
    """Return the guidance that --guidance or --cfg asks for."""
    if cfg is None:
        return guidance
    if guidance is not None:
        raise UsageError("--cfg and --guidance are one setting on two scales; give one of them")
    if not cfg >= 1:
        raise UsageError(f"--cfg must be at least 1, which is off, not {cfg}")
    return cfg - 1


def shown(text: str) -> str:
    """Return a value for a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _seeds(item: str) -> range:
    match = re.fullmatch(r"(-?[0-9]{1,20})(?:-([0-9]{1,20}))?", item.strip())
    if match is None:
        raise UsageError(
            f"--seed must be whole numbers (7, 1,2,3) or a range (1-4), not {shown(item)}"
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UsageError(f"--seed has the range {item}; write {last}-{first}")
    if last - first >= MAX_PICTURES:
        raise UsageError(f"--seed lists the range {item}; the most is {MAX_PICTURES}")
    return range(first, last + 1)


def random_seed() -> int:
    """Return a seed below 2^32, as other programs take them."""
    return secrets.randbelow(2**32)
