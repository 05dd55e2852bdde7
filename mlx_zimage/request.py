"""What is asked for, and what happens: plain frozen data, the same in the library and as JSON."""

import base64
import dataclasses
import itertools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import RequestError

if TYPE_CHECKING:
    import mlx.core as mx
    from PIL import Image

MAX_SIDE = 8192  # pixels: what the official positions hold
MAX_STEPS = 1000
MAX_AMOUNT = 1000
MAX_SEED = 2**64 - 1


@dataclass(frozen=True, eq=False)
class Request:
    """One generation. A field left at None takes the checkpoint's default.

    What can be judged without a checkpoint is judged here; the rest when it is resolved.
    """

    prompt: str | tuple[str, ...] | None = None  # several: one picture each
    negative_prompt: str | tuple[str, ...] | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    seed: int | tuple[int, ...] | None = None  # one drawn for the whole batch, or one each
    guidance: float | None = None  # 0 is off; ComfyUI's cfg minus 1
    cfg_normalization: float | None = None  # longest guided prediction, in lengths of the unguided
    cfg_truncation: float | None = None  # the model's time after which guidance is off
    schedule: str | tuple[float, ...] | None = None  # "legacy", or noise levels before the shift
    noise: str | None = None  # "torch-cpu", "torch-cuda:GPU" or "mlx"
    latents: np.ndarray | None = None  # (B, C, h, w), in place of a seed
    prompt_embeds: tuple[np.ndarray, ...] | None = None  # (length, width) each, for prompt=None

    def __post_init__(self) -> None:
        checks = {
            "prompt": _texts,
            "negative_prompt": _texts,
            "width": _side,
            "height": _side,
            "steps": _steps,
            "seed": _seeds,
            "guidance": _amount,
            "cfg_normalization": _amount,
            "cfg_truncation": _amount,
            "schedule": _schedule,
            "noise": _text,
            "latents": _latents,
            "prompt_embeds": _embeds,
        }
        for name, check in checks.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(name, value))
        if (self.prompt is None) == (self.prompt_embeds is None):
            given = "neither" if self.prompt is None else "both"
            raise RequestError(f"a request needs either a prompt or prompt_embeds, and got {given}")
        self._check_counts()

    @property
    def count(self) -> int:
        """How many pictures it makes."""
        several = self.prompt_embeds if self.prompt is None else self.prompt
        return len(several) if isinstance(several, tuple) else 1

    @property
    def prompts(self) -> tuple[str, ...]:
        return _one_each(self.prompt, self.count)

    @property
    def negative_prompts(self) -> tuple[str, ...]:
        return _one_each(self.negative_prompt or "", self.count)

    def replace(self, **changes: Any) -> "Request":
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` takes back; fields left at None are left out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Request":
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise RequestError(
                f"a request has no '{unknown[0]}'; its fields are {', '.join(sorted(known))}"
            )
        return cls(**{name: _from_plain(value) for name, value in data.items()})

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"a request must be valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise RequestError("a request must be a JSON object")
        return cls.from_dict(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def _check_counts(self) -> None:
        for name in ("negative_prompt", "seed"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.count:
                raise RequestError(
                    f"{name} must be one for all or one for each of {self.count} pictures, "
                    f"not {len(value)}"
                )
        if self.latents is None:
            return
        if len(self.latents) != self.count:
            raise RequestError(
                f"latents must hold one for each of {self.count} pictures, not {len(self.latents)}"
            )
        for name in ("seed", "noise"):
            if getattr(self, name) is not None:
                raise RequestError(f"{name} has no effect where latents are given; leave it out")


Phase = Literal["load", "encode", "denoise", "decode"]


@dataclass(frozen=True)
class Started:
    """A phase begins; `part` is what is loaded."""

    phase: Phase
    part: str = ""


@dataclass(frozen=True)
class Finished:
    phase: Phase
    seconds: float
    part: str = ""


@dataclass(frozen=True)
class Truncated:
    """A prompt was too long, and its end is not part of the picture."""

    lost: str
    limit: int  # tokens


@dataclass(frozen=True, eq=False)
class Step:
    """Forward `number` of `total` is done."""

    number: int
    total: int
    sigma: float  # the noise level reached
    seconds: float
    latents: "mx.array"  # (B, C, h, w), float32


@dataclass(frozen=True, eq=False)
class Result:
    image: "Image.Image"
    latents: "mx.array"  # (1, C, h, w), float32
    prompt_embeds: "mx.array"  # (length, width), the caption that conditioned it
    request: Request  # with every field filled in: it makes this again
    index: int = 0  # which picture of that request


Event = Started | Finished | Truncated | Step | Result


def _one_each(value: str | tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,) * count


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a text, not {value!r}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # half of a character, as from broken bytes
        raise RequestError(
            f"{name} must be valid Unicode, not {value!r}: {error.reason}"
        ) from error
    return value


def _texts(name: str, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if not value:
            raise RequestError(f"{name} must hold at least one text, not an empty list")
        return tuple(_text(name, item) for item in value)
    return _text(name, value)


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return number


def _side(name: str, value: Any) -> int:
    return _integer(name, value, 1, MAX_SIDE)


def _steps(name: str, value: Any) -> int:
    return _integer(name, value, 1, MAX_STEPS)


def _seeds(name: str, value: Any) -> int | tuple[int, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(_integer(name, item, 0, MAX_SEED) for item in value)
    return _integer(name, value, 0, MAX_SEED)


def _amount(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= MAX_AMOUNT:
        raise RequestError(f"{name} must be a number from 0 to {MAX_AMOUNT}, not {value!r}")
    return number


def _schedule(name: str, value: Any) -> str | tuple[float, ...]:
    if isinstance(value, str):
        return value
    try:
        levels = tuple(float(level) for level in value)
    except (TypeError, ValueError, OverflowError):
        levels = ()
    falling = all(np.float32(a) > np.float32(b) for a, b in itertools.pairwise((*levels, 0.0)))
    if not levels or len(levels) > MAX_STEPS or not falling or not 0 < levels[-1] <= levels[0] <= 1:
        raise RequestError(
            f"{name} must be a name or noise levels that fall from at most 1 to above 0, "
            f"not {value!r}"
        )
    return levels


def _array(name: str, value: Any, ndim: int) -> np.ndarray:
    if type(value).__module__.startswith("mlx"):
        value = value.astype(_mlx_float32())  # NumPy has no bfloat16
    try:
        given = np.asarray(value)
        array = np.array(given, np.float32) if given.dtype.kind in "fiu" else None
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{name} must be an array of numbers: {error}") from error
    if array is None:
        raise RequestError(f"{name} must be an array of real numbers, not of {given.dtype}")
    if array.ndim != ndim or not array.size:
        raise RequestError(f"{name} must have {ndim} dimensions, not the shape {array.shape}")
    if not np.isfinite(array).all():
        raise RequestError(f"{name} must be finite; some values are NaN or infinite")
    array.flags.writeable = False
    return array


def _mlx_float32() -> "mx.Dtype":
    import mlx.core as mx

    return mx.float32


def _latents(name: str, value: Any) -> np.ndarray:
    return _array(name, value, 4)


def _embeds(name: str, value: Any) -> tuple[np.ndarray, ...]:
    several = value if isinstance(value, list | tuple) else (value,)
    if not several:
        raise RequestError(f"{name} must hold at least one array, not an empty list")
    return tuple(_array(name, item, 2) for item in several)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(value.astype("<f4").tobytes()).decode()
        return {"shape": list(value.shape), "float32": data}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        try:
            data = base64.b64decode(value["float32"], validate=True)
            return np.frombuffer(data, "<f4").reshape(value["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"an array must hold 'shape' and 'float32' data: {error}") from error
    return [_from_plain(item) for item in value] if isinstance(value, list) else value
