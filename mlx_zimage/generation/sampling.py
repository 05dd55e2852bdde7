"""The sampler that a request names, and the schedule that goes with it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..checkpoint.checkpoint import Checkpoint
from ..checks import excerpt
from ..errors import RequestError
from ..request import DRAWING_SAMPLERS, Request
from ..sampling.ancestral import EulerAncestral
from ..sampling.multistep import Dpmpp2M, ResMultistep
from ..sampling.noise import NoiseStream, shifted_seeds
from ..sampling.samplers import Euler, Sampler
from ..sampling.schedule import Schedule, SchedulerConfig, make_schedule
from ..sampling.twinflow import STEPS, TwinFlow, twinflow_schedule
from .run import Context, Run

EULER, TWINFLOW = "euler", "twinflow"
SAMPLERS: dict[str, Callable[[], Sampler]] = {
    EULER: Euler,
    "res_multistep": ResMultistep,
    "dpmpp_2m": Dpmpp2M,
}
NOISY_SAMPLERS: dict[str, Callable[[NoiseStream], Sampler]] = {
    "euler_ancestral": EulerAncestral,
    TWINFLOW: TwinFlow,
}
"""The samplers that draw fresh noise, from a stream that is not the first noise's."""
assert {*NOISY_SAMPLERS} == {*DRAWING_SAMPLERS}
NAMES = (EULER, "euler_ancestral", "res_multistep", "dpmpp_2m", TWINFLOW)


def samplers_for(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of the samplers for a checkpoint, its default first."""
    others = tuple(name for name in NAMES if name != TWINFLOW)
    return (TWINFLOW, *others) if checkpoint.transformer.has_target_time else others


class SamplingFeature:
    """`sampler`: any name on any checkpoint, but twinflow on those that were trained for it."""

    def fill(self, request: Request, context: Context) -> Mapping[str, Any]:
        is_twinflow = context.checkpoint.transformer.has_target_time
        name = request.sampler or (TWINFLOW if is_twinflow else EULER)
        if name not in NAMES:
            listed = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
            raise RequestError(f"sampler must be {listed}, not {excerpt(name)}")
        if name != TWINFLOW:
            return {"sampler": name}
        _check_twinflow(request, has_target_time=is_twinflow)
        return {"sampler": name, "steps": STEPS[-1], "guidance": 0.0}

    def plan(self, run: Run, context: Context) -> Run:
        name = run.request.sampler or EULER
        if name in SAMPLERS:
            return replace(run, sampler=SAMPLERS[name])
        kind, seed = run.request.noise or "torch-cpu", run.request.seed or 0

        def sampler() -> Sampler:
            # ComfyUI's seed for it on a CPU: with the request's own, it would be the first noise.
            return NOISY_SAMPLERS[name](NoiseStream(kind, shifted_seeds(seed, 1)))

        return replace(run, sampler=sampler)


def schedule_of(request: Request, scheduler: SchedulerConfig, image_tokens: int) -> Schedule:
    """Return all levels of a request whose steps and sampler are filled in."""
    assert request.steps is not None
    if request.sampler == TWINFLOW:
        return twinflow_schedule(request.steps)
    return make_schedule(scheduler, request.steps, image_tokens, request.schedule, request.shift)


def _check_twinflow(request: Request, *, has_target_time: bool) -> None:
    if not has_target_time:
        raise RequestError(
            "sampler 'twinflow' needs a TwinFlow checkpoint, and this one has no t_embedder_2; "
            "ask for another sampler, such as res_multistep"
        )
    if request.steps is not None and request.steps not in STEPS:
        raise RequestError(
            f"sampler 'twinflow' takes {STEPS[0]} to {STEPS[-1]} steps, not {request.steps}; ask "
            "for that, or for another sampler"
        )
    if request.guidance:
        raise RequestError("sampler 'twinflow' works without guidance; leave guidance out")
    for name in ("schedule", "shift"):
        if getattr(request, name) is not None:
            raise RequestError(
                f"{name} has no effect with sampler 'twinflow', which has levels of its own; "
                "leave it out, or ask for another sampler"
            )
