"""Planning: a request meets a checkpoint and becomes a `Run`.

A run holds all that can be decided before a weight is read: every field filled in, the shapes, the
schedule, the tokens and the sizes that decide memory. `check`, `estimate` and `stream` all use it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.family import Family, family_of
from ..errors import CheckpointError, RequestError
from ..files import read_json
from ..models.activations import Workload
from ..prompt.tokenizer import MAX_TOKENS, PromptTokenizer, Tokens
from ..request import Request
from ..sampling import noise
from ..sampling.samplers import Euler, Sampler, SamplerStep
from ..sampling.schedule import Schedule, SchedulerConfig, make_schedule

GUIDANCE_FIELDS: dict[str, Any] = {
    "negative_prompt": "",
    "cfg_normalization": 0.0,
    "cfg_truncation": 1.0,
}
"""The fields that act with guidance alone, and their defaults."""


def unchanged(latents: mx.array, step: SamplerStep) -> mx.array:
    """Keep what the sampler made."""
    return latents


@dataclass(frozen=True, eq=False)
class Run:
    """A request resolved against a checkpoint. Its slots say what is special about it."""

    request: Request  # with every field that acts filled in
    shape: tuple[int, int, int, int]  # of the latents: (B, C, h, w)
    schedule: Schedule
    tokens: Mapping[str, Tokens]  # of each distinct prompt and negative prompt
    workload: Workload
    start: Callable[[], mx.array]  # the first latents, (B, C, h, w) float32
    sampler: Sampler = field(default_factory=Euler)
    keep: Callable[[mx.array, SamplerStep], mx.array] = unchanged  # what stays after a step

    @property
    def negative_prompts(self) -> tuple[str, ...]:
        """The negative prompt of each picture; empty without guidance."""
        return self.request.negative_prompts if self.request.guidance else ()

    def caption(self, index: int, captions: Mapping[str, mx.array]) -> mx.array:
        """Return the caption (length, width) of one picture."""
        if self.request.embeddings:
            return mx.array(self.request.embeddings[index])
        return captions[self.request.prompts[index]]


class Planner:
    """Plans runs for one checkpoint."""

    def __init__(self, checkpoint: Checkpoint):
        file = checkpoint.scheduler_file
        self._checkpoint = checkpoint
        self._scheduler = SchedulerConfig.from_dict(read_json(file), str(file))
        self._tokenizer = PromptTokenizer.from_folder(checkpoint.tokenizer_folder)
        self.family: Family = family_of(checkpoint, self._scheduler)

    @property
    def max_tokens(self) -> int:
        return min(MAX_TOKENS, self._checkpoint.transformer.max_caption_tokens)

    def plan(self, request: Request) -> Run:
        """Fill in a request's fields and judge it, or raise what is wrong with it."""
        filled = self._fill(request)
        self._check_sides(filled)
        _check_guidance(filled)
        if filled.noise is not None:
            noise.check_kind(filled.noise)
        shape = self._shape(filled)
        self._check_arrays(filled, shape)
        patch = self._checkpoint.transformer.patch_size
        image_tokens = (shape[2] // patch) * (shape[3] // patch)
        assert filled.steps is not None
        schedule = make_schedule(self._scheduler, filled.steps, image_tokens, filled.schedule)
        tokens = self._tokenize(filled)
        return Run(
            request=filled,
            shape=shape,
            schedule=schedule,
            tokens=tokens,
            workload=self._workload(filled, len(schedule), tokens),
            start=lambda: _first_latents(filled, shape),
        )

    def _fill(self, request: Request) -> Request:
        """Replace None by the checkpoint's defaults."""
        fill: dict[str, Any] = {"steps": self._steps(request), "guidance": self.family.guidance}
        if request.latents is None:
            side = self._checkpoint.default_side
            fill |= {"width": side, "height": side}
            fill |= {"seed": noise.random_seed(), "noise": noise.TORCH_CPU}
        else:
            factor = self._checkpoint.vae.scale_factor
            fill |= {"height": request.latents.shape[2] * factor}
            fill |= {"width": request.latents.shape[3] * factor}
        guidance = fill["guidance"] if request.guidance is None else request.guidance
        if guidance:
            fill |= GUIDANCE_FIELDS
        missing = {name: v for name, v in fill.items() if getattr(request, name) is None}
        return request.replace(**missing)

    def _steps(self, request: Request) -> int:
        if isinstance(request.schedule, tuple):
            steps = len(request.schedule)
            if request.steps not in (None, steps):
                raise RequestError(
                    f"steps must equal the schedule's {steps} noise levels, not {request.steps}"
                )
            return steps
        # The legacy schedule counts a last step that it does not run.
        return self.family.steps + (0 if request.schedule is None else 1)

    def _check_sides(self, request: Request) -> None:
        multiple = self._checkpoint.image_multiple
        for name in ("width", "height"):
            if getattr(request, name) % multiple:
                raise RequestError(
                    f"{name} must be a multiple of {multiple}, not {getattr(request, name)}"
                )

    def _shape(self, request: Request) -> tuple[int, int, int, int]:
        """Return the latents' (B, C, h, w)."""
        assert request.width is not None and request.height is not None
        factor = self._checkpoint.vae.scale_factor
        channels = self._checkpoint.transformer.in_channels
        return request.count, channels, request.height // factor, request.width // factor

    def _check_arrays(self, request: Request, shape: tuple[int, int, int, int]) -> None:
        if request.latents is not None and request.latents.shape != shape:
            raise RequestError(
                f"latents for {request.count} x {request.width} x {request.height} pixels must "
                f"have the shape {shape}, not {request.latents.shape}"
            )
        self._checkpoint.transformer.check_size(*shape[2:])
        for embeds in request.embeddings:
            self._checkpoint.transformer.check_caption(embeds.shape)

    def _tokenize(self, request: Request) -> dict[str, Tokens]:
        negatives = request.negative_prompts if request.guidance else ()
        texts = dict.fromkeys((*request.prompts, *negatives))
        tokens = {text: self._tokenizer.turn(text, self.max_tokens) for text in texts}
        size = self._checkpoint.text_encoder.vocab_size
        largest = max((max(t.ids, default=0) for t in tokens.values()), default=0)
        if largest >= size:
            raise CheckpointError(
                f"{self._checkpoint.tokenizer_folder} gives token {largest}, and the text encoder "
                f"has {size}; they are of two models"
            )
        return tokens

    def _workload(self, request: Request, steps: int, tokens: Mapping[str, Tokens]) -> Workload:
        assert request.width is not None and request.height is not None
        lengths = [len(embeds) for embeds in request.embeddings]
        lengths += [len(turn.ids) for turn in tokens.values()]
        return Workload(
            request.width,
            request.height,
            self._checkpoint.image_multiple,
            request.count,
            steps,
            max(lengths),
        )


def _check_guidance(request: Request) -> None:
    if request.guidance:
        return
    for name in GUIDANCE_FIELDS:
        if getattr(request, name) is not None:
            raise RequestError(
                f"{name} has no effect without guidance; leave it out, or ask for a guidance "
                "above 0"
            )


def _first_latents(request: Request, shape: tuple[int, int, int, int]) -> mx.array:
    if request.latents is not None:
        return mx.array(request.latents)
    assert request.noise is not None and request.seed is not None
    return noise.draw(request.noise, request.seed, shape)
