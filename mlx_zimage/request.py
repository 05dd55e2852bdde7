"""Requests: what to generate, as plain frozen data that is the same in the library and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from .checks import excerpt, reason
from .errors import RequestError
from .fields import CHECKS, Nag, from_plain, refuse_unknown, short, to_plain
from .images.picture import Picture, PictureLike

if TYPE_CHECKING:
    import mlx.core as mx
    from typing_extensions import Unpack


DRAWING_SAMPLERS = ("euler_ancestral", "twinflow")
"""The samplers that draw noise in their steps."""


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
    shift: float | None
    sampler: str | None
    noise: str | None
    latents: "np.ndarray | mx.array | list[Any] | None"
    image: "PictureLike | Sequence[PictureLike] | None"
    fit: Literal["crop", "pad", "stretch"] | None
    strength: float | None
    mask: "PictureLike | Sequence[PictureLike] | None"
    mask_softness: float | None
    keep_unmasked: bool | None
    outpaint: Sequence[int] | None
    focus: int | None
    nag: "Nag | Mapping[str, float] | float | None"
    variety: float | None
    variation_of: int | None
    variation_strength: float | None
    hires: float | None
    hires_strength: float | None


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
    - schedule: "legacy" (diffusers before 0.39), "simple", "sgm_uniform", "normal", "beta", or
      noise levels before the shift.
    - shift: moves the schedule's noise levels up, instead of the checkpoint's own shift.
    - sampler: "euler", "euler_ancestral", "res_multistep", "dpmpp_2m" or "twinflow".
    - noise: the random generator, "torch-cpu", "torch-cuda:GPU" or "mlx".
    - latents: (B, C, h, w), to start from instead of a seed's noise.
    - prompt_embeds: (length, width), or a list with one for each picture, instead of a prompt.
    - image: a picture to change: a path, a PIL image or an array (H, W, 3) of bytes; a list gives
      one for each prompt.
    - fit: how the image is brought to width and height: "crop", "pad" or "stretch".
    - strength: the share of the steps that run on the image, 0 to 1.
    - mask: white where the image is painted anew; grey counts as white from half on.
    - mask_softness: the width in pixels of the mask's soft edge; 0 is hard.
    - keep_unmasked: pastes the image's own pixels back where the mask is black.
    - outpaint: pixels to add at the left, top, right and bottom of the image.
    - focus: paints only the mask's surroundings, with this margin in pixels, at full size.
    - nag: normalized attention guidance, for negative prompts without guidance.
    - variety: 0 to 1: how far the first steps' caption is moved at random, so that seeds differ.
    - variation_of: a seed whose picture is varied: its noise, turned toward that of `seed`.
    - variation_strength: how far: 0 is the picture of variation_of, 1 that of seed.
    - hires: a factor by which the finished picture is enlarged and refined; hires_strength is the
      strength of that second pass.
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
    shift: float | None = None
    sampler: str | None = None
    noise: str | None = None
    latents: np.ndarray | None = None
    prompt_embeds: np.ndarray | tuple[np.ndarray, ...] | None = None
    image: Picture | tuple[Picture, ...] | None = None
    fit: str | None = None
    strength: float | None = None
    mask: Picture | tuple[Picture, ...] | None = None
    mask_softness: float | None = None
    keep_unmasked: bool | None = None
    outpaint: tuple[int, int, int, int] | None = None
    focus: int | None = None
    nag: Nag | None = None
    variety: float | None = None
    variation_of: int | None = None
    variation_strength: float | None = None
    hires: float | None = None
    hires_strength: float | None = None

    def __init__(
        self, prompt: str | Sequence[str] | None = None, **options: "Unpack[Options]"
    ) -> None:
        refuse_unknown(options)
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
    def draws_during_steps(self) -> bool:
        """Whether the seed acts beyond the first noise."""
        return self.sampler in DRAWING_SAMPLERS or bool(self.variety)

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
        refuse_unknown(changes)
        return Request(**{**vars(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not None as plain values; `from_dict` reverses it."""
        return {name: to_plain(v) for name, v in vars(self).items() if v is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Request":
        """Return the request that `to_dict` described."""
        if not isinstance(data, Mapping):
            raise RequestError(f"a request must be a mapping of its fields, not {excerpt(data)}")
        refuse_unknown(data)
        arrays = ("latents", "prompt_embeds")
        return cls(**{n: from_plain(v) if n in arrays else v for n, v in data.items()})

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
        fields = (f"{name}={short(v)}" for name, v in vars(self).items() if v is not None)
        return f"Request({', '.join(fields)})"

    def _check_counts(self) -> None:
        pictures = "1 picture" if self.count == 1 else f"{self.count} pictures"
        for name in ("negative_prompt", "seed"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.count:
                raise RequestError(
                    f"{name} must be one for all or one for each of {pictures}, not {len(value)}"
                )
        for name in ("image", "mask"):
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
        if self.draws_during_steps:
            return
        for name in ("seed", "noise"):
            if getattr(self, name) is not None:
                raise RequestError(f"{name} has no effect with latents; leave it out")


def _one_each(value: str | tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,) * count
