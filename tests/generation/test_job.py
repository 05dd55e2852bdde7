"""Several requests as one job, and what a job leaves behind."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import (
    Finished,
    OutOfMemoryError,
    Request,
    RequestError,
    Result,
    Started,
    Step,
    ZImage,
)
from mlx_zimage.memory import store

REQUESTS = [
    Request("a red fox", width=32, height=32, steps=2, seed=1),
    Request("a red fox", width=48, height=32, steps=3, seed=2),
    Request(["blue", "a red fox"], width=32, height=32, steps=2, seed=3),
    Request("green", width=32, height=32, steps=2, seed=4, guidance=2.0, negative_prompt="blue"),
]


@pytest.mark.parametrize("memory", ["resident", "staged", "low"])
def test_the_same_pictures_as_alone(checkpoint: Callable[[str], Path], memory: Any) -> None:
    model = ZImage.load(checkpoint("small"), memory=memory)
    results = [e for e in model.stream_all(REQUESTS) if isinstance(e, Result)]
    assert [(r.job, r.index) for r in results] == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
    for result in results:
        alone = model.generate(REQUESTS[result.job])
        single = alone[result.index] if isinstance(alone, list) else alone
        assert mx.array_equal(result.latents, single.latents)
        assert np.array_equal(np.asarray(result.image), np.asarray(single.image))
        assert result.metadata == single.metadata


@pytest.mark.parametrize("memory", ["staged", "low"])
def test_each_component_is_loaded_once(checkpoint: Callable[[str], Path], memory: Any) -> None:
    model = ZImage.load(checkpoint("small"), memory=memory)
    events = list(model.stream_all(REQUESTS))
    loaded = [e.component for e in events if isinstance(e, Started) and e.phase == "load"]
    assert loaded == ["text_encoder", "transformer", "vae"]
    phases = [(e.phase, e.job) for e in events if isinstance(e, Started) and e.phase != "load"]
    denoised = [phases.index(("denoise", job)) for job in range(4)]
    assert max(denoised) < phases.index(("decode", 0))


def test_resident_pictures_come_one_by_one(checkpoint: Callable[[str], Path]) -> None:
    model = ZImage.load(checkpoint("small"), memory="resident")
    events = [e for e in model.stream_all(REQUESTS[:2]) if isinstance(e, Step | Result)]
    assert [(type(e).__name__, e.job) for e in events] == [
        *[("Step", 0)] * 2,
        ("Result", 0),
        *[("Step", 1)] * 3,
        ("Result", 1),
    ]


def test_every_phase_that_begins_ends(checkpoint: Callable[[str], Path]) -> None:
    model = ZImage.load(checkpoint("small"), memory="staged")
    events = list(model.stream_all(REQUESTS))
    started = [(e.phase, e.component, e.job) for e in events if isinstance(e, Started)]
    finished = [(e.phase, e.component, e.job) for e in events if isinstance(e, Finished)]
    assert sorted(started) == sorted(finished)


def test_refused_as_a_whole_before_any_work(checkpoint: Callable[[str], Path]) -> None:
    model = ZImage.load(checkpoint("small"))
    with pytest.raises(RequestError, match="width must be a multiple of 16, not 17"):
        model.stream_all([REQUESTS[0], Request("x", width=17)])
    with pytest.raises(OutOfMemoryError):
        model.stream_all([REQUESTS[0], Request(["x"] * 4000, width=8192, height=8192)])


def test_no_request_is_no_work(checkpoint: Callable[[str], Path]) -> None:
    assert list(ZImage.load(checkpoint("small")).stream_all([])) == []


def test_cancelled_between_pictures(checkpoint: Callable[[str], Path]) -> None:
    model = ZImage.load(checkpoint("small"), memory="staged")
    gc.collect()
    before = mx.get_active_memory()
    events = model.stream_all(REQUESTS)
    next(e for e in events if isinstance(e, Result))
    events.close()
    del events
    model.unload()
    gc.collect()
    assert mx.get_active_memory() - before < 100_000


def test_equal_prompts_do_not_share_memory(checkpoint: Callable[[str], Path]) -> None:
    model = ZImage.load(checkpoint("small"), dtype="float32")
    a, b = model.generate(["x", "x"], width=32, height=32, steps=1, seed=1)
    expected = np.array(b.prompt_embeds)
    memory = np.array(a.prompt_embeds, copy=False)
    memory.flags.writeable = True
    memory[:] = 0
    assert np.array_equal(np.array(b.prompt_embeds), expected)
    again = model.generate("x", width=32, height=32, steps=1, seed=1)
    assert np.array_equal(np.array(again.prompt_embeds), expected)


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    clear = mx.clear_cache
    monkeypatch.setattr(store.mx, "clear_cache", lambda: (calls.append(1), clear())[1])
    return calls


@pytest.mark.parametrize("end", ["finished", "closed", "failed"])
def test_a_resident_job_leaves_no_cache(
    checkpoint: Callable[[str], Path], cleared: list[int], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ZImage.load(checkpoint("small"), memory="resident")
    model.generate("x", width=32, height=32, steps=2, seed=1)
    cleared.clear()
    events = model.stream("x", width=32, height=32, steps=2, seed=1)
    if end == "failed":
        monkeypatch.setattr("mlx_zimage.generation.job.to_image", lambda pixels: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(events)
    elif end == "closed":
        next(e for e in events if isinstance(e, Step))
        events.close()
    else:
        list(events)
    assert len(cleared) == 1
