"""The loop on its slots, without weights."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Step
from mlx_zimage.generation.loop import Slots, denoise
from mlx_zimage.generation.run import unchanged
from mlx_zimage.sampling.samplers import Euler, SamplerStep
from mlx_zimage.sampling.schedule import SchedulerConfig, make_schedule

SCHEDULE = make_schedule(SchedulerConfig(shift=3.0), 8, 256)
START = np.random.RandomState(0).standard_normal((2, 16, 4, 6)).astype(np.float32)


class MockTransformer:
    """Predicts a velocity that is a function of the latents and the time."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def predict(self, latents: mx.array, step: SamplerStep) -> mx.array:
        self.times.append(step.time)
        return mx.sin(latents) * (1 + step.time)


def _slots(**slots: Any) -> Slots:
    defaults: dict[str, Any] = {
        "latents": mx.array(START),
        "predict": MockTransformer().predict,
        "sampler": Euler(),
        "keep": unchanged,
        "check": lambda latents, where: None,
    }
    return Slots(**{**defaults, **slots})


def _run(slots: Slots) -> tuple[list[Step], np.ndarray]:
    events = denoise(SCHEDULE, slots)
    steps = []
    while True:
        try:
            steps.append(next(events))
        except StopIteration as end:
            return steps, np.array(end.value)


def test_euler_against_float64() -> None:
    transformer = MockTransformer()
    steps, latents = _run(_slots(predict=transformer.predict))
    x = START.astype(np.float64)
    sigmas = SCHEDULE.sigmas.astype(np.float64)
    for i in range(8):
        x = x + (sigmas[i + 1] - sigmas[i]) * np.sin(x) * (1 + SCHEDULE.times[i])
    assert np.linalg.norm(latents - x) / np.linalg.norm(x) < 2e-7  # 4.6e-8
    assert transformer.times == [float(time) for time in SCHEDULE.times]
    assert [step.number for step in steps] == list(range(1, 9))
    assert {step.total for step in steps} == {8}
    assert [step.sigma for step in steps] == [float(sigma) for sigma in SCHEDULE.sigmas[1:]]
    assert np.array_equal(np.array(steps[-1].latents), latents)


def test_what_is_kept_enters_the_next_step() -> None:
    """The last column is held at its first values, as a mask would hold it."""
    mask = mx.array(np.arange(6) == 5)
    _, latents = _run(_slots(keep=lambda x, step: mx.where(mask, mx.array(START), x)))
    _, free = _run(_slots())
    assert np.array_equal(latents[..., 5], START[..., 5])
    assert np.array_equal(latents[..., :5], free[..., :5])
    assert not np.array_equal(free[..., 5], START[..., 5])


def test_another_sampler() -> None:
    class Twice(Euler):
        """Takes each interval's second half as a step of its own."""

        def steps(self, schedule: Any) -> list[SamplerStep]:
            halves = []
            for step in super().steps(schedule):
                middle = (step.sigma + step.next_sigma) / 2
                halves.append(SamplerStep(step.index, step.time, step.sigma, middle))
                halves.append(SamplerStep(step.index, 1 - middle, middle, step.next_sigma))
            return halves

    steps, _ = _run(_slots(sampler=Twice()))
    assert [step.total for step in steps] == [16] * 16
    assert steps[-1].sigma == 0


def test_the_check_sees_every_step() -> None:
    seen: list[str] = []

    def check(latents: mx.array, where: str) -> None:
        seen.append(where)
        if where == "step 3":
            raise ValueError("not finite")

    with pytest.raises(ValueError, match="not finite"):
        _run(_slots(check=check))
    assert seen == ["step 1", "step 2", "step 3"]


def test_writing_into_a_steps_latents_changes_nothing() -> None:
    _, expected = _run(_slots())
    events = denoise(SCHEDULE, _slots())
    while True:
        try:
            step = next(events)
        except StopIteration as end:
            latents = np.array(end.value)
            break
        memory = np.array(step.latents, copy=False)
        memory.flags.writeable = True
        memory[:] = 1e9
        step.latents[:] = -1e9
    assert np.array_equal(latents, expected)
