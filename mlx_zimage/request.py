"""Requests: what to generate, as plain frozen data that is the same in the library and as JSON."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from . import checks
from .checks import excerpt, reason, shape_text
from .errors import RequestError

if TYPE_CHECKING:
    import mlx.core as mx
    from typing_extensions import Unpack


MAX_SIDE = 8192  # pixels: the size of the published position table
MAX_STEPS = 1000
MAX_AMOUNT = 1000
MAX_SEED = 2**64 - 1


class PromptOptions(TypedDict, total=False):
    """The options that go with a prompt: all except the embeddings that stand in for one."""

    negative_prompt: str | Sequence[str] | None
    width: int | None
    height: int | None
    steps: int | None
    seed: int | Sequence[int] | None
    guidance: float | None
    cfg_normalization: float | None
    cfg_truncation: float | None
    schedule: "str | Sequence[float] | np.ndarray | mx.array | None"
    noise: str | None
    latents: "np.ndarray | mx.array | list[Any] | None"


class Options(PromptOptions, total=False):
    """The fields of `Request` except the prompt, with the types that they may be given as.

    `Request` explains each of them. None is the same as leaving a field out.
    """

    prompt_embeds: "np.ndarray | mx.array | Sequence[np.ndarray | mx.array] | None"


class _Changes(Options, total=False):
    """The fields that `Request.replace` may change."""

    prompt: str | Sequence[str] | None


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Request:
    """One generation. A field that is None takes the checkpoint's default.

    Values are checked on construction as far as that is possible without a checkpoint. They are
    stored as the types below: lists become tuples, arrays become read-only float32 NumPy arrays.

    - prompt: a list gives one picture for each.
    - negative_prompt: one for all pictures, or one for each. It needs a guidance above 0.
    - width, height: pixels.
    - steps: steps of the sampler.
    - seed: one for all pictures, or one for each.
    - guidance: 0 is off. It equals ComfyUI's cfg minus 1.
    - cfg_normalization: the limit of a guided prediction's length, as a multiple of the unguided
      one's; 0 is no limit.
    - cfg_truncation: the model's time (0 pure noise, 1 clean image) after which guidance is off; 1
      keeps it on to the end. This is no share of the steps: with Base and 50 steps, 0.5 turns
      guidance off for the last 7, as its schedule passes most times late.
    - schedule: "legacy" (diffusers before 0.39), or noise levels before the shift.
    - noise: the random generator, "torch-cpu", "torch-cuda:GPU" or "mlx".
    - latents: (B, C, h, w), to start from instead of a seed's noise.
    - prompt_embeds: (length, width), or a list with one for each picture, instead of a prompt.
    """

    prompt: str | tuple[str, ...] | None = None
    negative_prompt: str | tuple[str, ...] | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    seed: int | tuple[int, ...] | None = None
    guidance: float | None = None
    cfg_normalization: float | None = None
    cfg_truncation: float | None = None
    schedule: str | tuple[float, ...] | None = None
    noise: str | None = None
    latents: np.ndarray | None = None
    prompt_embeds: np.ndarray | tuple[np.ndarray, ...] | None = None

    def __init__(
        self, prompt: str | Sequence[str] | None = None, **options: "Unpack[Options]"
    ) -> None:
        _refuse_unknown(options)
        for name, check in CHECKS.items():
            value = prompt if name == "prompt" else options.get(name)
            object.__setattr__(self, name, None if value is None else check(name, value))
        if (self.prompt is None) == (self.prompt_embeds is None):
            number = "neither" if self.prompt is None else "both"
            raise RequestError(
                f"a request needs either a prompt or prompt_embeds, and got {number}"
            )
        self._check_counts()

    @property
    def batched(self) -> bool:
        """Whether `generate` returns a list: the prompt, or prompt_embeds, is a list."""
        return isinstance(self.prompt, tuple) or isinstance(self.prompt_embeds, tuple)

    @property
    def count(self) -> int:
        """The number of pictures."""
        several = self.prompt_embeds if self.prompt is None else self.prompt
        return len(several) if isinstance(several, tuple) else 1

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each picture; empty with prompt_embeds."""
        return _one_each(self.prompt, self.count)

    @property
    def negative_prompts(self) -> tuple[str, ...]:
        """The negative prompt of each picture."""
        return _one_each(self.negative_prompt or "", self.count)

    @property
    def embeddings(self) -> tuple[np.ndarray, ...]:
        """The prompt_embeds of each picture; empty with a prompt."""
        embeds = self.prompt_embeds
        return () if embeds is None else embeds if isinstance(embeds, tuple) else (embeds,)

    def replace(self, **changes: "Unpack[_Changes]") -> "Request":
        """Return a copy in which some fields differ."""
        _refuse_unknown(changes)
        return Request(**{**vars(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not None as plain values; `from_dict` reverses it."""
        return {name: _to_plain(v) for name, v in vars(self).items() if v is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Request":
        """Return the request that `to_dict` described."""
        if not isinstance(data, Mapping):
            raise RequestError(f"a request must be a mapping of its fields, not {excerpt(data)}")
        _refuse_unknown(data)
        arrays = ("latents", "prompt_embeds")
        return cls(**{n: _from_plain(v) if n in arrays else v for n, v in data.items()})

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """Return the request that `to_json` described."""
        try:
            data = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"a request must be valid JSON: {reason(error)}") from error
        if not isinstance(data, dict):
            raise RequestError("a request must be a JSON object")
        return cls.from_dict(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[Any, ...]:  # arrays are read-only after pickling as well
        return Request.from_dict, (self.to_dict(),)

    def __repr__(self) -> str:
        fields = (f"{name}={_short(v)}" for name, v in vars(self).items() if v is not None)
        return f"Request({', '.join(fields)})"

    def _check_counts(self) -> None:
        pictures = "1 picture" if self.count == 1 else f"{self.count} pictures"
        for name in ("negative_prompt", "seed"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.count:
                raise RequestError(
                    f"{name} must be one for all or one for each of {pictures}, not {len(value)}"
                )
        if self.latents is None:
            return
        if len(self.latents) != self.count:
            raise RequestError(
                f"latents must hold one for each of {pictures}, not {len(self.latents)}"
            )
        for name in ("seed", "noise"):
            if getattr(self, name) is not None:
                raise RequestError(f"{name} has no effect with latents; leave it out")


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
    "noise": checks.string,
    "latents": _latents,
    "prompt_embeds": _embeds,
}
"""The check of each field."""


def _refuse_unknown(options: Mapping[Any, Any]) -> None:
    for name in options:
        if name not in CHECKS:
            import difflib

            near = difflib.get_close_matches(str(name)[:80], CHECKS, 1)
            hint = f"did you mean {near[0]}?" if near else f"its fields are {', '.join(CHECKS)}"
            raise RequestError(f"a request has no field {excerpt(name)}; {hint}")


def _one_each(value: str | tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,) * count


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        more = ", ..." if len(value) > 4 else "," if len(value) == 1 else ""
        return f"({', '.join(map(_short, value[:4]))}{more})"
    return shape_text(value) if isinstance(value, np.ndarray) else excerpt(value)


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(value.astype("<f4").tobytes()).decode()
        return {"shape": list(value.shape), "float32": data}
    return [_to_plain(item) for item in value] if isinstance(value, tuple) else value


def _from_plain(value: Any) -> Any:
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
