"""A request meets a checkpoint: what was left open is filled in, the rest is judged."""

from dataclasses import dataclass
from typing import Any

from ..checkpoint.checkpoint import Checkpoint
from ..errors import RequestError
from ..request import Request
from ..sampling import noise
from ..sampling.schedule import Schedule, SchedulerConfig, make_schedule

BASE_SHIFT = 6.0
"""Base is told from Turbo by its scheduler: it ships a static shift of 6, Turbo one of 3."""
NEEDS_GUIDANCE: dict[str, Any] = {
    "negative_prompt": "",
    "cfg_normalization": 0.0,
    "cfg_truncation": 1.0,
}


@dataclass(frozen=True)
class Defaults:
    """What this checkpoint does when not told otherwise, from its own files."""

    side: int
    steps: int
    guidance: float

    @classmethod
    def of(cls, checkpoint: Checkpoint, scheduler: SchedulerConfig) -> "Defaults":
        base = not scheduler.use_dynamic_shifting and scheduler.shift >= BASE_SHIFT
        steps, guidance = (50, 4.0) if base else (8, 0.0)
        return cls(checkpoint.default_side, steps, guidance)


def resolve(request: Request, checkpoint: Checkpoint, scheduler: SchedulerConfig) -> Request:
    """The same request with every field that acts filled in; or a RequestError."""
    filled = _filled(request, checkpoint, Defaults.of(checkpoint, scheduler))
    multiple = checkpoint.image_multiple
    for name in ("width", "height"):
        if getattr(filled, name) % multiple:
            raise RequestError(
                f"{name} must be a multiple of {multiple}, not {getattr(filled, name)}"
            )
    if not filled.guidance:
        for name in NEEDS_GUIDANCE:
            if getattr(filled, name) is not None:
                raise RequestError(
                    f"{name} has no effect without guidance; leave it out, or ask for a guidance "
                    "above 0"
                )
    if filled.noise is not None:
        noise.check_kind(filled.noise)
    shape = latents_shape(filled, checkpoint)
    if filled.latents is not None and filled.latents.shape != shape:
        raise RequestError(
            f"latents for {filled.count} x {filled.width} x {filled.height} pixels must have the "
            f"shape {shape}, not {filled.latents.shape}"
        )
    checkpoint.transformer.check_size(*shape[2:])
    for embeds in filled.prompt_embeds or ():
        checkpoint.transformer.check_caption(embeds.shape)
    schedule_of(filled, checkpoint, scheduler)
    return filled


def latents_shape(request: Request, checkpoint: Checkpoint) -> tuple[int, int, int, int]:
    """(B, C, h, w) of a resolved request."""
    assert request.width is not None and request.height is not None
    factor = checkpoint.vae.scale_factor
    channels = checkpoint.transformer.in_channels
    return request.count, channels, request.height // factor, request.width // factor


def schedule_of(request: Request, checkpoint: Checkpoint, scheduler: SchedulerConfig) -> Schedule:
    """The noise levels of a resolved request."""
    assert request.steps is not None
    _, _, h, w = latents_shape(request, checkpoint)
    patch = checkpoint.transformer.patch_size
    return make_schedule(scheduler, request.steps, (h // patch) * (w // patch), request.schedule)


def _filled(request: Request, checkpoint: Checkpoint, defaults: Defaults) -> Request:
    steps = defaults.steps
    if isinstance(request.schedule, tuple):
        steps = len(request.schedule)
        if request.steps not in (None, steps):
            raise RequestError(
                f"steps must equal the schedule's {steps} noise levels, not {request.steps}"
            )
    elif request.schedule is not None:
        steps += 1  # the legacy schedule counts one that it does not run
    fill: dict[str, Any] = {"steps": steps, "guidance": defaults.guidance}
    if request.latents is None:
        fill |= {"width": defaults.side, "height": defaults.side}
        fill |= {"seed": noise.random_seed(), "noise": noise.TORCH_CPU}
    else:
        factor = checkpoint.vae.scale_factor
        fill |= {"height": request.latents.shape[2] * factor}
        fill |= {"width": request.latents.shape[3] * factor}
    if request.guidance or (request.guidance is None and defaults.guidance):
        fill |= NEEDS_GUIDANCE
    missing = {key: value for key, value in fill.items() if getattr(request, key) is None}
    return request.replace(**missing)
