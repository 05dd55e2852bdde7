"""Requests against a checkpoint: its defaults, and what it cannot do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_zimage import Request, RequestError
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.family import family_of
from mlx_zimage.generation.plan import Planner
from mlx_zimage.generation.run import Context
from mlx_zimage.sampling.schedule import SchedulerConfig

TURBO = SchedulerConfig(shift=3.0)
BASE = SchedulerConfig(shift=6.0)


@pytest.fixture(scope="module")
def small(checkpoint: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint.open(checkpoint("small"))


def _plan(small: Checkpoint, request: Request, scheduler: SchedulerConfig) -> Request:
    planner = Planner(small)
    planner.context = Context(small, scheduler, family_of(small, scheduler))
    return planner.plan(request).request


def _resolve(small: Checkpoint, scheduler: SchedulerConfig = TURBO, **options: Any) -> Request:
    return _plan(small, Request(**{"prompt": "x", **options}), scheduler)


def test_turbo_defaults(small: Checkpoint) -> None:
    request = _resolve(small)
    assert (request.width, request.height, request.steps, request.guidance) == (64, 64, 8, 0)
    assert request.noise == "torch-cpu"
    assert isinstance(request.seed, int)
    assert request.negative_prompt is None


def test_base_defaults(small: Checkpoint) -> None:
    request = _resolve(small, BASE)
    assert (request.steps, request.guidance, request.negative_prompt) == (50, 4.0, "")
    assert (request.cfg_normalization, request.cfg_truncation) == (0.0, 1.0)


def test_a_dynamic_shift_is_not_base(small: Checkpoint) -> None:
    scheduler = SchedulerConfig(shift=6.0, use_dynamic_shifting=True)
    assert family_of(small, scheduler).steps == 8


def test_side_comes_from_the_vae(checkpoint: Callable[[str], Path]) -> None:
    full = Checkpoint.open(checkpoint("diffusers"))
    assert full.default_side == 64


def test_seeds_are_drawn_anew(small: Checkpoint) -> None:
    assert len({_resolve(small).seed for _ in range(8)}) > 1


def test_resolving_twice_changes_nothing(small: Checkpoint) -> None:
    once = _resolve(small, BASE, prompt=["a", "b"])
    assert _plan(small, once, BASE) == once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 17}, "width must be a multiple of 16, not 17"),
        ({"height": 40}, "height must be a multiple of 16, not 40"),
        ({"negative_prompt": "y"}, "negative_prompt has no effect without guidance"),
        ({"cfg_normalization": 1.0}, "cfg_normalization has no effect without guidance"),
        ({"cfg_truncation": 0.5}, "cfg_truncation has no effect without guidance"),
        ({"noise": "cpu"}, "noise must be 'torch-cpu'"),
        ({"noise": "torch-cuda"}, "noise must be 'torch-cpu'"),
        ({"noise": "torch-cuda:9999"}, "noise must be 'torch-cpu'"),
        ({"schedule": "karras"}, "schedule must be 'legacy'"),
        ({"schedule": "legacy", "steps": 1}, "the legacy schedule needs at least 2 steps"),
        ({"schedule": [1.0, 0.5], "steps": 3}, "steps must equal the schedule's 2"),
        ({"latents": np.zeros((1, 16, 3, 4))}, "height must be a multiple of 16"),
        ({"latents": np.zeros((1, 8, 4, 4))}, r"must have the shape \(1, 16, 4, 4\)"),
        ({"latents": np.zeros((1, 16, 4, 4)), "width": 64}, r"must have the shape"),
        ({"prompt": None, "prompt_embeds": [np.zeros((3, 47))]}, r"must have the shape \(1 to"),
        ({"prompt": None, "prompt_embeds": [np.zeros((1505, 48))]}, r"must have the shape \(1 to"),
    ],
)
def test_refused(small: Checkpoint, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        _resolve(small, **options)


def test_guidance_may_be_switched_off_on_base(small: Checkpoint) -> None:
    assert _resolve(small, BASE, guidance=0).guidance == 0
    with pytest.raises(RequestError, match="no effect without guidance"):
        _resolve(small, BASE, guidance=0, negative_prompt="x")


def test_a_custom_schedule_sets_the_steps(small: Checkpoint) -> None:
    assert _resolve(small, schedule=[1.0, 0.5]).steps == 2
    assert _resolve(small, schedule="legacy").steps == 9


def test_latents_set_the_size(small: Checkpoint) -> None:
    request = _resolve(small, latents=np.zeros((1, 16, 4, 6)))
    assert (request.width, request.height, request.seed, request.noise) == (48, 32, None, None)
