"""The second pass: larger pictures, the same ones each time, in tiles where they are large."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Finished, RequestError, Result, Started, Step, ZImage, compare_pictures
from mlx_zimage.generation import hires
from mlx_zimage.generation.run import Run

PROMPT = "the red circle on the ice"
SIZE: dict[str, Any] = {"width": 64, "height": 48, "steps": 4, "guidance": 0, "seed": 5}


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> ZImage:
    return ZImage.load(checkpoint("small"), dtype="float32")


def _run(model: ZImage, **options: Any) -> Run:
    return model._planner.plan(model.check(PROMPT, **{**SIZE, **options}))


def test_the_picture_is_larger_and_always_the_same(model: ZImage) -> None:
    result = model.generate(PROMPT, **SIZE, hires=2)
    assert result.image.size == (128, 96)
    assert result.latents.shape == (1, 16, 12, 16)
    assert (result.request.width, result.request.height) == (64, 48)
    assert (result.request.hires, result.request.hires_strength) == (2, 0.35)
    again = model.generate(result.request)
    assert again.image.tobytes() == result.image.tobytes()
    assert result.metadata["request"]["hires"] == 2


def test_the_events_of_both_passes(model: ZImage) -> None:
    events = list(model.stream("a prompt of its own", **SIZE, hires=1.5, hires_strength=0.5))
    steps = [event for event in events if isinstance(event, Step)]
    assert [(step.number, step.total) for step in steps] == [(n, 6) for n in range(1, 7)]
    assert [step.latents.shape[2:] for step in steps] == [(6, 8)] * 4 + [(10, 12)] * 2
    assert steps[-1].sigma == 0
    assert steps[-1].preview().size == (96, 80)
    started = [event.phase for event in events if isinstance(event, Started)]
    assert [p for p in started if p != "load"] == [
        "encode", "denoise", "decode", "encode", "denoise", "decode",
    ]  # fmt: skip
    assert started == [event.phase for event in events if isinstance(event, Finished)]


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["resident", "staged", "low"])
def test_each_picture_of_a_batch_and_each_memory_mode(
    memory: Any, checkpoint: Callable[[str], Path], model: ZImage
) -> None:
    options: dict[str, Any] = {**SIZE, "seed": [5, 6]}
    expected = model.generate([PROMPT, PROMPT], **options, hires=2)
    other = ZImage.load(checkpoint("small"), dtype="float32", memory=memory)
    results = other.generate([PROMPT, PROMPT], **options, hires=2)
    alone = model.generate(PROMPT, **{**SIZE, "seed": 6}, hires=2)
    assert np.abs(np.array(results[1].latents) - np.array(alone.latents)).max() < 1e-3
    for one, two in zip(results, expected, strict=True):
        assert np.abs(np.array(one.latents) - np.array(two.latents)).max() < 1e-3


def test_jobs_with_and_without(checkpoint: Callable[[str], Path]) -> None:
    """Where memory is staged, all first passes come before the second ones."""
    model = ZImage.load(checkpoint("small"), dtype="float32", memory="staged")
    requests = [model.check(PROMPT, **{**SIZE, "hires": n}) for n in (None, 2, 1)]
    events = list(model.stream_all(requests))
    results = {event.job: event for event in events if isinstance(event, Result)}
    assert [results[job].image.size for job in range(3)] == [(64, 48), (128, 96), (64, 48)]
    loads = [e.component for e in events if isinstance(e, Started) and e.phase == "load"]
    assert loads == ["text_encoder", "transformer", "vae", "vae", "transformer", "vae"]
    totals = {e.job: e.total for e in events if isinstance(e, Step)}
    assert totals == {0: 4, 1: 6, 2: 4}


@pytest.mark.slow
def test_it_refines_the_first_picture() -> None:
    """What the demo draws stays, and its edges become sharper."""
    model = ZImage.load("demo", dtype="float32")
    options: dict[str, Any] = {"seed": 1}
    first = model.generate("the letter R in white on black", **options)
    second = model.generate("the letter R in white on black", **options, hires=2)
    enlarged = first.image.resize((256, 256), Image.Resampling.LANCZOS)
    result = compare_pictures(enlarged, second.image)
    assert result.psnr > 20 and result.ssim > 0.9  # 24.2 and 0.957

    def sharpness(picture: Image.Image) -> float:
        return float(np.abs(np.diff(np.asarray(picture, float), axis=1)).max())

    assert sharpness(second.image) > 1.1 * sharpness(enlarged)


def test_large_pictures_are_painted_in_tiles(model: ZImage) -> None:
    """The model's own side is 64: up to 128 x 128 a picture is painted as a whole."""
    assert _run(model, hires=2).workload.tile is None
    run = _run(model, hires=4)
    assert run.workload.tile == (96, 96)
    assert run.workload.image_tokens == 36
    assert (run.workload.width, run.workload.height) == (256, 192)
    assert model.generate(PROMPT, **SIZE, hires=4).image.size == (256, 192)


def test_tiles_hold_to_the_whole(model: ZImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles as large as the picture change nothing."""
    expected = model.generate(PROMPT, **SIZE, hires=2)
    monkeypatch.setattr(hires, "WHOLE", 0)
    monkeypatch.setattr(hires, "TILE", 2)
    result = model.generate(PROMPT, **SIZE, hires=2)
    assert np.abs(np.array(result.latents) - np.array(expected.latents)).max() < 1e-4


def test_4096_is_planned(model: ZImage) -> None:
    run = _run(model, width=1024, height=1024, hires=4)
    assert (run.workload.width, run.workload.height) == (4096, 4096)
    assert run.workload.image_tokens == 36


def test_the_estimate_knows_the_larger_size(model: ZImage) -> None:
    small, large, direct = (
        model.estimate(PROMPT, **{**SIZE, **changes})
        for changes in ({}, {"hires": 2}, {"width": 128, "height": 96})
    )
    assert large.denoise >= direct.denoise > small.denoise
    assert large.decode == direct.decode > small.decode
    assert large.encode >= small.encode


def test_an_image_and_latents_go_through(model: ZImage) -> None:
    image = Image.new("RGB", (64, 48), "red")
    assert model.generate(PROMPT, **SIZE, image=image, hires=2).image.size == (128, 96)
    latents = np.zeros((1, 16, 6, 8), np.float32)
    result = model.generate(PROMPT, steps=2, guidance=0, latents=latents, hires=2)
    assert result.image.size == (128, 96)


def test_one_is_off(model: ZImage) -> None:
    off, none = (model.generate(PROMPT, **SIZE, hires=value) for value in (1, None))
    assert off.image.tobytes() == none.image.tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hires_strength": 0.3}, "hires_strength has no effect without hires"),
        ({"hires": 2, "hires_strength": 0}, "hires_strength must be above 0"),
        ({"hires": 0.5}, "hires must be a number from 1 to 8"),
        ({"hires": 8, "width": 2048}, "to 16384 x 384 pixels; a side may have at most 8192"),
        (
            {
                "hires": 2,
                "image": Image.new("RGB", (64, 48)),
                "mask": Image.new("L", (64, 48), 255),
            },
            "hires paints over all of the picture, and mask keeps a part of it",
        ),
    ],
)
def test_refused(options: dict[str, Any], message: str, model: ZImage) -> None:
    with pytest.raises(RequestError, match=message):
        model.check(PROMPT, **{**SIZE, **options})
