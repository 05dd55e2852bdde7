"""The noise levels that a run visits.

They are computed on the host in float32, in the order in which the published scheduler does it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import configs
from ..checks import excerpt
from ..errors import CheckpointError, RequestError
from .comfy_schedules import COMFY, Levels, shifted

LEGACY = "legacy"
"""diffusers before 0.39 spaced N points down to 0: its "9 steps" were 8 and an idle one."""
SCHEDULES = (LEGACY, *COMFY)
"""The schedules that have a name."""

UNSUPPORTED = (
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)


@dataclass(frozen=True)
class SchedulerConfig:
    """scheduler/scheduler_config.json."""

    num_train_timesteps: int = 1000
    shift: float = 1.0
    use_dynamic_shifting: bool = False  # shift by the image's size instead of by `shift`
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    shift_terminal: float | None = None
    time_shift_type: str = "exponential"

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "scheduler/scheduler_config.json"
    ) -> "SchedulerConfig":
        name = data.get("_class_name", "FlowMatchEulerDiscreteScheduler")
        if name != "FlowMatchEulerDiscreteScheduler":
            raise CheckpointError(
                f"{where}: the scheduler must be FlowMatchEulerDiscreteScheduler, not {name}"
            )
        if wrong := [key for key in UNSUPPORTED if data.get(key)]:
            raise CheckpointError(f"{where}: {', '.join(wrong)} must be false; not supported here")
        config = configs.read(cls, {k: v for k, v in data.items() if v is not None}, where)
        if config.time_shift_type not in ("exponential", "linear"):
            raise CheckpointError(
                f"{where}: 'time_shift_type' must be 'exponential' or 'linear', "
                f"not {config.time_shift_type!r}"
            )
        if config.shift <= 0:
            raise CheckpointError(f"{where}: 'shift' must be above 0, not {config.shift}")
        if not 0 <= (config.shift_terminal or 0) < 1:
            raise CheckpointError(
                f"{where}: 'shift_terminal' must be from 0 to below 1, not {config.shift_terminal}"
            )
        if config.base_image_seq_len >= config.max_image_seq_len:
            raise CheckpointError(
                f"{where}: 'base_image_seq_len' must be below 'max_image_seq_len', not "
                f"{config.base_image_seq_len} against {config.max_image_seq_len}"
            )
        if "shift" not in data and not config.use_dynamic_shifting:
            raise CheckpointError(
                f"{where} must hold 'shift', which is missing; copy the file again from the "
                "official checkpoint"
            )
        return config


@dataclass(frozen=True)
class Schedule:
    """Noise levels, one more than there are steps; the last is 0."""

    sigmas: np.ndarray  # (N + 1,) float32
    train_timesteps: int = 1000

    def __len__(self) -> int:
        return len(self.sigmas) - 1

    @property
    def timesteps(self) -> np.ndarray:
        """The timesteps as diffusers counts them: 1000 at pure noise."""
        return self.sigmas[:-1] * np.float32(self.train_timesteps)

    @property
    def times(self) -> np.ndarray:
        """The transformer's time: 0 at pure noise, 1 at a clean image."""
        return (np.float32(1000) - self.timesteps) / np.float32(1000)

    def from_step(self, first: int) -> "Schedule":
        """Return the rest of the schedule, which begins with step `first`, counted from 0."""
        if not 0 <= first < len(self):
            raise ValueError(f"a schedule of {len(self)} steps has no step {first}")
        return replace(self, sigmas=self.sigmas[first:])


def make_schedule(
    config: SchedulerConfig,
    steps: int,
    image_tokens: int,
    kind: str | Sequence[float] | None = None,
    shift: float | None = None,
) -> Schedule:
    """Build a schedule; `kind` is None (as published), a name, or levels before the shift.

    A `shift` replaces the checkpoint's own, whether that is fixed or depends on the size.
    """
    if shift is not None:
        config = replace(config, shift=shift, use_dynamic_shifting=False)
    if isinstance(kind, str) and kind in COMFY:
        sigmas = _named(config, COMFY[kind], steps, image_tokens)
    else:
        sigmas = _published(config, _levels(kind, steps), image_tokens)
    sigmas = np.append(sigmas.astype(np.float32), np.float32(0))
    if not np.isfinite(sigmas).all():
        raise RequestError(
            f"the checkpoint's scheduler has no schedule of {steps} steps at this size; "
            "ask for other steps or another size"
        )
    return Schedule(sigmas, config.num_train_timesteps)


def _named(config: SchedulerConfig, levels: Levels, steps: int, image_tokens: int) -> np.ndarray:
    shift = _size_shift(config, image_tokens) if config.use_dynamic_shifting else config.shift
    with np.errstate(all="ignore"):  # a size whose shift is not above 0 has no schedule
        return levels(shift, steps) if shift > 0 else np.array([math.nan])


def _published(config: SchedulerConfig, levels: np.ndarray, image_tokens: int) -> np.ndarray:
    sigmas = _shifted(config, levels, image_tokens)
    if config.shift_terminal:
        distance = 1 - sigmas
        with np.errstate(invalid="ignore"):
            sigmas = 1 - distance / (distance[-1] / (1 - config.shift_terminal))
    return sigmas


def _levels(kind: str | Sequence[float] | None, steps: int) -> np.ndarray:
    if kind is None:
        return _linspace(steps)
    return _legacy_levels(kind, steps) if isinstance(kind, str) else np.asarray(kind, np.float32)


def _linspace(steps: int) -> np.ndarray:
    """Return levels from 1 to 1 / steps, to the last bit as torch computes them: from both ends."""
    last = np.float32(1 / steps)
    width = np.float64((last - np.float32(1)) / np.float32(max(steps - 1, 1)))
    index = np.arange(steps)
    forward, backward = 1 + width * index, np.float64(last) - width * (steps - 1 - index)
    return np.where(index < steps // 2, forward, backward).astype(np.float32)


def _legacy_levels(kind: str, steps: int) -> np.ndarray:
    if kind != LEGACY:
        raise RequestError(
            f"schedule must be {', '.join(map(repr, SCHEDULES))}, a list of noise levels, or left "
            f"out, not {excerpt(kind)}"
        )
    if steps < 2:
        raise RequestError(
            f"the legacy schedule needs at least 2 steps, not {steps}: its last one is idle"
        )
    # The last point is 0, where nothing is left to do, so it is no step here.
    return np.linspace(1, 0, steps)[:-1]


def _shifted(config: SchedulerConfig, levels: np.ndarray, image_tokens: int) -> np.ndarray:
    if not config.use_dynamic_shifting:
        return shifted(levels, config.shift)
    weight = _size_shift(config, image_tokens)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(weight / (weight + (1 / levels - 1)))


def _size_shift(config: SchedulerConfig, image_tokens: int) -> float:
    """Return the shift of an image's size."""
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    mu = image_tokens * slope + config.base_shift - slope * config.base_image_seq_len
    # Beyond 80 a float32 share is 1 anyway, and farther the exponential overflows.
    return math.exp(min(mu, 80.0)) if config.time_shift_type == "exponential" else mu
