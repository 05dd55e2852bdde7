"""Noise levels against the figures known from running the published scheduler."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.errors import CheckpointError, RequestError
from mlx_zimage.sampling.samplers import Euler
from mlx_zimage.sampling.schedule import SchedulerConfig, make_schedule

TURBO = SchedulerConfig.from_dict({"shift": 3.0, "use_dynamic_shifting": False})
EIGHT = [1, 0.954545, 0.9, 0.833333, 0.75, 0.642857, 0.5, 0.3, 0]
NINE = [1, 0.96, 0.913044, 0.857143, 0.789474, 0.705882, 0.6, 0.461538, 0.272727, 0]


def test_eight_and_nine_steps() -> None:
    assert make_schedule(TURBO, 8, 4096).sigmas == pytest.approx(EIGHT, abs=1e-6)
    assert make_schedule(TURBO, 9, 4096).sigmas == pytest.approx(NINE, abs=1e-6)


def test_legacy_nine_is_eight() -> None:
    legacy = make_schedule(TURBO, 9, 4096, "legacy")
    assert len(legacy) == 8
    assert legacy.sigmas == pytest.approx(EIGHT, abs=1e-6)


def test_times() -> None:
    schedule = make_schedule(TURBO, 8, 4096)
    assert schedule.timesteps == pytest.approx([1000 * s for s in EIGHT[:-1]], rel=1e-6)
    assert schedule.times == pytest.approx([1 - s for s in EIGHT[:-1]], abs=1e-6)
    assert schedule.times.dtype == schedule.timesteps.dtype == schedule.sigmas.dtype == np.float32


def test_custom_levels_are_shifted() -> None:
    schedule = make_schedule(TURBO, 2, 4096, [1.0, 0.5])
    assert schedule.sigmas.tolist() == [1.0, 0.75, 0.0]


def test_dynamic_shift_goes_with_the_size() -> None:
    config = SchedulerConfig(use_dynamic_shifting=True)
    at_half = [make_schedule(config, 2, tokens).sigmas[1] for tokens in (256, 4096)]
    expected = [np.exp(mu) / (np.exp(mu) + 1) for mu in (0.5, 1.15)]
    assert at_half == pytest.approx(expected, rel=1e-6)


def test_one_step() -> None:
    assert make_schedule(TURBO, 1, 256).sigmas.tolist() == [1.0, 0.0]


def test_the_rest_of_a_schedule() -> None:
    schedule = make_schedule(TURBO, 8, 4096)
    rest = schedule.from_step(5)
    assert len(rest) == 3 and rest.sigmas.tolist() == schedule.sigmas[5:].tolist()
    assert rest.times.tolist() == schedule.times[5:].tolist()
    assert schedule.from_step(0).sigmas.tolist() == schedule.sigmas.tolist()
    for first in (-1, 8):
        with pytest.raises(ValueError, match=f"8 steps has no step {first}"):
            schedule.from_step(first)


def test_euler_is_float32() -> None:
    schedule = make_schedule(TURBO, 8, 256)
    latents, velocity = mx.array([1.0, 2.0]), mx.array([0.5, -1.0])
    moved = Euler().step(latents, velocity, Euler().steps(schedule)[6])
    assert moved.dtype == mx.float32
    distance = np.float32(0.3) - np.float32(0.5)
    assert moved.tolist() == pytest.approx([1 + 0.5 * distance, 2 - distance], abs=1e-7)


def test_official_scheduler_file() -> None:
    data = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": "0.36.0.dev0",
        "num_train_timesteps": 1000,
        "use_dynamic_shifting": False,
        "shift": 3.0,
    }
    assert SchedulerConfig.from_dict(data) == SchedulerConfig(shift=3.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"_class_name": "DDIMScheduler"}, "must be FlowMatchEulerDiscreteScheduler"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas must be false"),
        ({"stochastic_sampling": True}, "stochastic_sampling must be false"),
        ({"time_shift_type": "cubic"}, "'time_shift_type' must be"),
        ({"shift": "3"}, "'shift' must be a number within 1e9 of 0"),
        ({"shift": 0.0}, "'shift' must be above 0"),
        ({"shift_terminal": 1.0}, "'shift_terminal' must be from 0 to below 1"),
        ({"max_image_seq_len": 256}, "'base_image_seq_len' must be below"),
    ],
)
def test_refused_files(data: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        SchedulerConfig.from_dict(data)


def test_schedules_that_do_not_exist() -> None:
    with pytest.raises(RequestError, match="has no schedule of 1 steps"):
        make_schedule(SchedulerConfig(shift_terminal=0.1), 1, 256)


def test_a_config_without_a_shift_is_refused() -> None:
    for data in ({}, {"num_train_timesteps": 1000}, {"use_dynamic_shifting": False}):
        with pytest.raises(CheckpointError, match="must hold 'shift'"):
            SchedulerConfig.from_dict(data)
    assert SchedulerConfig.from_dict({"use_dynamic_shifting": True}).use_dynamic_shifting


def test_an_absurd_shift_is_noise_to_the_end() -> None:
    config = SchedulerConfig(use_dynamic_shifting=True, base_shift=1e4, max_shift=1e5)
    assert make_schedule(config, 3, 256).sigmas.tolist() == [1, 1, 1, 0]


def test_refused_kinds() -> None:
    names = "'legacy', 'simple', 'sgm_uniform', 'normal', 'beta', a list"
    with pytest.raises(RequestError, match=f"schedule must be {names}.*, not 'karras'"):
        make_schedule(TURBO, 8, 256, "karras")


def test_a_shift_in_place_of_the_checkpoints() -> None:
    dynamic = SchedulerConfig(use_dynamic_shifting=True)
    for config in (TURBO, dynamic):
        assert make_schedule(config, 2, 256, shift=6.0).sigmas[1] == pytest.approx(6 / 7)
        levels = make_schedule(config, 2, 256, [0.8, 0.2], shift=2.0).sigmas
        assert levels == pytest.approx([1.6 / 1.8, 0.4 / 1.2, 0])
        legacy = make_schedule(config, 3, 256, "legacy", shift=1.0).sigmas
        assert legacy.tolist() == [1, 0.5, 0]
        assert make_schedule(config, 2, 256, "simple", shift=1.0).sigmas.tolist() == [1, 0.5, 0]
