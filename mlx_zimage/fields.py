"""The fields of a request: the check of each, and their forms in JSON."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import checks
from .checks import excerpt, reason, shape_text
from .errors import RequestError
from .images.picture import Picture

MAX_SIDE = 8192  # pixels: the size of the published position table
MAX_STEPS = 1000
MAX_AMOUNT = 1000
MAX_SEED = 2**64 - 1
FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True)
class Nag:
    """Normalized attention guidance: a negative prompt's pull without a second forward."""

    scale: float  # 1 is off
    tau: float = 3.5  # the limit of the guided attention's length, as a multiple of the plain one's
    alpha: float = 0.5  # the guided attention's share

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", checks.number("nag's scale", self.scale, 1, 100))
        object.__setattr__(self, "tau", checks.number("nag's tau", self.tau, 1, 100))
        object.__setattr__(self, "alpha", checks.number("nag's alpha", self.alpha, 0, 1))


def _side(name: str, value: object) -> int:
    return checks.integer(name, value, 1, MAX_SIDE)


def _steps(name: str, value: object) -> int:
    return checks.integer(name, value, 1, MAX_STEPS)


def _seeds(name: str, value: object) -> int | tuple[int, ...]:
    return checks.integers(name, value, 0, MAX_SEED)


def _guidance(name: str, value: object) -> float:
    return checks.number(name, value, 0, MAX_AMOUNT)


def _normalization(name: str, value: object) -> float:
    value = float(value) if isinstance(value, bool) else value  # diffusers takes True for 1
    return checks.number(name, value, 0, MAX_AMOUNT)


def _truncation(name: str, value: object) -> float:
    return checks.number(name, value, 0, 1, " (1: guidance is on to the end)")


def _latents(name: str, value: object) -> np.ndarray:
    return checks.array(name, value, 4)


def _embeds(name: str, value: object) -> np.ndarray | tuple[np.ndarray, ...]:
    if not checks.is_list(value):
        return checks.array(name, value, 2)
    if not value:
        raise RequestError(f"{name} must hold at least one array, not an empty list")
    return tuple(checks.array(name, item, 2) for item in value)


def _share(name: str, value: object) -> float:
    return checks.number(name, value, 0, 1)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, not {excerpt(value)}")
    return value


def _pictures(name: str, value: object) -> Picture | tuple[Picture, ...]:
    if not checks.is_list(value):
        return Picture.read(name, value)
    if not value:
        raise RequestError(f"{name} must hold at least one picture, not an empty list")
    return tuple(Picture.read(name, item) for item in value)


def _border(name: str, value: object) -> tuple[int, int, int, int]:
    if not checks.is_list(value) or len(value) != 4:
        raise RequestError(
            f"{name} must be four numbers of pixels (left, top, right, bottom), "
            f"not {excerpt(value)}"
        )
    left, top, right, bottom = (checks.integer(name, item, 0, MAX_SIDE) for item in value)
    return left, top, right, bottom


def _nag(name: str, value: object) -> Nag:
    if isinstance(value, Nag):
        return value
    if isinstance(value, Mapping):
        if unknown := sorted({*value} - {"scale", "tau", "alpha"}, key=str):
            raise RequestError(f"{name} has no field {excerpt(unknown[0])}")
        return Nag(**value)
    return Nag(checks.number(name, value, 1, 100))


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "prompt": checks.strings,
    "negative_prompt": checks.strings,
    "width": _side,
    "height": _side,
    "steps": _steps,
    "seed": _seeds,
    "guidance": _guidance,
    "cfg_normalization": _normalization,
    "cfg_truncation": _truncation,
    "schedule": checks.schedule,
    "shift": lambda name, value: checks.number(name, value, 0.01, 100),
    "sampler": checks.string,
    "noise": checks.string,
    "latents": _latents,
    "prompt_embeds": _embeds,
    "image": _pictures,
    "fit": lambda name, value: checks.one_of(name, value, FITS),
    "strength": _share,
    "mask": _pictures,
    "mask_softness": lambda name, value: checks.number(name, value, 0, MAX_SIDE),
    "keep_unmasked": _flag,
    "outpaint": _border,
    "focus": lambda name, value: checks.integer(name, value, 0, MAX_SIDE),
    "nag": _nag,
    "variety": _share,
    "variation_of": lambda name, value: checks.integer(name, value, 0, MAX_SEED),
    "variation_strength": _share,
    "hires": lambda name, value: checks.number(name, value, 1, 8),
    "hires_strength": _share,
}
"""The check of each field."""


def refuse_unknown(options: Mapping[Any, Any]) -> None:
    for name in options:
        if name not in CHECKS:
            import difflib

            near = difflib.get_close_matches(str(name)[:80], CHECKS, 1)
            hint = f"did you mean {near[0]}?" if near else "see help(mlx_zimage.Request)"
            raise RequestError(f"a request has no field {excerpt(name)}; {hint}")


def short(value: Any) -> str:
    """Return a field's value for a repr."""
    if isinstance(value, tuple):
        more = ", ..." if len(value) > 4 else "," if len(value) == 1 else ""
        return f"({', '.join(map(short, value[:4]))}{more})"
    if isinstance(value, Picture | Nag):
        return repr(value)
    return shape_text(value) if isinstance(value, np.ndarray) else excerpt(value)


def to_plain(value: Any) -> Any:
    """Return a field's value in the form that JSON takes."""
    if isinstance(value, np.ndarray):
        data = base64.b64encode(value.astype("<f4").tobytes()).decode()
        return {"shape": list(value.shape), "float32": data}
    if isinstance(value, Picture):
        return value.to_data_url()
    if isinstance(value, Nag):
        return asdict(value)
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def from_plain(value: Any) -> Any:
    """Return arrays, or a list of arrays, from `to_dict`'s form; everything else as it is."""
    if isinstance(value, list):
        return [_array(item) if isinstance(item, dict) else item for item in value]
    return _array(value) if isinstance(value, dict) else value


def _array(value: dict[str, Any]) -> np.ndarray:
    try:
        data = base64.b64decode(value["float32"], validate=True)
        return np.frombuffer(data, "<f4").reshape(value["shape"])
    except KeyError as error:
        raise RequestError(
            f"an array must hold 'shape' and 'float32', and has no {error}"
        ) from None
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"an array must hold a 'shape' and base64 'float32': {reason(error)}"
        ) from error
