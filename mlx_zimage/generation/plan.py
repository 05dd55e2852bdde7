"""Planning: a request meets a checkpoint and becomes a `Run`.

A run holds all that can be decided before a weight is read; `check`, `estimate` and `stream` use
it. Each feature fills in its fields and sets its slots; they are listed once, in FEATURES.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.family import family_of
from ..errors import CheckpointError, RequestError
from ..files import read_json
from ..models.activations import Workload
from ..prompt.tokenizer import MAX_TOKENS, PromptTokenizer, Tokens
from ..request import Request
from ..sampling import noise
from ..sampling.schedule import SchedulerConfig
from .hires import HiresFeature
from .image import ImageFeature
from .nag import NagFeature
from .run import Beginning, Context, Features, Run, guides
from .sampling import SamplingFeature, schedule_of
from .variety import VariationFeature, VarietyFeature

GUIDANCE_FIELDS: dict[str, Any] = {
    "negative_prompt": "",
    "cfg_normalization": 0.0,
    "cfg_truncation": 1.0,
}
"""The fields that act with guidance alone, and their defaults."""
FEATURES: Features = (
    SamplingFeature(),
    NagFeature(),
    VariationFeature(),
    VarietyFeature(),
    ImageFeature(),
    HiresFeature(),
)
"""The features, in the order in which they fill fields and set slots."""


class Planner:
    """Plans runs for one checkpoint."""

    def __init__(self, checkpoint: Checkpoint):
        file = checkpoint.scheduler_file
        scheduler = SchedulerConfig.from_dict(read_json(file), str(file))
        self.context = Context(checkpoint, scheduler, family_of(checkpoint, scheduler))
        self._checkpoint = checkpoint
        self._tokenizer = PromptTokenizer.from_folder(checkpoint.tokenizer_folder)

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
        shape = self.context.shape(filled)
        self._check_arrays(filled, shape)
        patch = self._checkpoint.transformer.patch_size
        image_tokens = (shape[2] // patch) * (shape[3] // patch)
        schedule = schedule_of(filled, self.context.scheduler, image_tokens)
        tokens = self._tokenize(filled)

        def begin(_: object, stream: noise.NoiseStream) -> Beginning:
            given = filled.latents
            return Beginning(stream.draw(shape) if given is None else mx.array(given))

        run = Run(
            request=filled,
            shape=shape,
            schedule=schedule,
            tokens=tokens,
            workload=self._workload(filled, len(schedule), tokens),
            begin=begin,
        )
        for feature in FEATURES:
            run = feature.plan(run, self.context)
        return run

    def _fill(self, request: Request) -> Request:
        """Replace None by the features' and the checkpoint's defaults."""
        for feature in FEATURES:
            request = _filled(request, feature.fill(request, self.context))
        fill: dict[str, Any] = {
            "steps": self._steps(request),
            "guidance": self.context.family.guidance,
        }
        if request.latents is None or request.draws_during_steps:
            fill |= {"seed": noise.random_seed(), "noise": noise.TORCH_CPU}
        if request.latents is None:
            side = self._checkpoint.default_side
            fill |= {"width": side, "height": side}
        else:
            factor = self._checkpoint.vae.scale_factor
            fill |= {"height": request.latents.shape[2] * factor}
            fill |= {"width": request.latents.shape[3] * factor}
        guidance = fill["guidance"] if request.guidance is None else request.guidance
        if guidance:
            fill |= GUIDANCE_FIELDS
        return _filled(request, fill)

    def _steps(self, request: Request) -> int:
        if isinstance(request.schedule, tuple):
            steps = len(request.schedule)
            if request.steps not in (None, steps):
                raise RequestError(
                    f"steps must equal the schedule's {steps} noise levels, not {request.steps}"
                )
            return steps
        # The legacy schedule counts a last step that it does not run.
        return self.context.family.steps + (1 if request.schedule == "legacy" else 0)

    def _check_sides(self, request: Request) -> None:
        multiple = self._checkpoint.image_multiple
        for name in ("width", "height"):
            if getattr(request, name) % multiple:
                raise RequestError(
                    f"{name} must be a multiple of {multiple}, not {getattr(request, name)}"
                )

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
        negatives = request.negative_prompts if guides(request) else ()
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
        is_prompt = name == "negative_prompt"
        if getattr(request, name) is None or (is_prompt and guides(request)):
            continue
        other, remedy = (" or nag", ", or a nag above 1") if is_prompt else ("", "")
        raise RequestError(
            f"{name} has no effect without guidance{other}; leave it out, or ask for a guidance "
            f"above 0{remedy}"
        )


def _filled(request: Request, values: Mapping[str, Any]) -> Request:
    """Return the request with values for those of its fields that are None."""
    missing = {name: v for name, v in values.items() if getattr(request, name) is None}
    return request.replace(**missing) if missing else request
