"""The written file as others read it, the frozen adapter, and the curve."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Result, TrainingOptions, TrainingStep, ZImage, train
from mlx_zimage.training.curve import curve, running_mean
from tests.measures import relative_error

from .conftest import SMALL, Train


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "lokr"])
def test_our_reader_draws_what_was_trained(
    kind: str, pictures: Path, tmp_path: Path, small_run: Train, checkpoint: Callable[[str], Path]
) -> None:
    """The last sample is drawn by the run, and again with the file; bfloat16 is between them."""
    folder, out = checkpoint("diffusers"), tmp_path / "a.safetensors"
    targets = ("layers", "noise_refiner")
    events = small_run(
        pictures, out, kind=kind, targets=targets, sample_every=4, sample_prompts=["a red one"]
    )
    sample = next(event for event in events if isinstance(event, Result))
    model = ZImage.load(folder, dtype="float32")
    without = model.generate(sample.request)
    model.set_loras([out])
    again = model.generate(sample.request)
    (applied,) = model.loras
    assert not applied.skipped and applied.kinds == (("LoKr",) if kind == "lokr" else ("LoRA",))
    effect = relative_error(without.latents, sample.latents)
    assert effect > 0.02
    assert relative_error(again.latents, sample.latents) < 0.02 * effect  # measured 0.004


@pytest.mark.slow
def test_a_frozen_adapter_is_trained_with_and_not_drawn_or_saved(
    pictures: Path, tmp_path: Path, small_run: Train, checkpoint: Callable[[str], Path]
) -> None:
    folder, first = checkpoint("diffusers"), tmp_path / "first.safetensors"
    small_run(pictures, first, learning_rate=0.1)
    options = TrainingOptions(**{**SMALL, "steps": 1, "sample_every": 1, "learning_rate": 1e-9})

    def events(adapter: Path | None, name: str) -> list[object]:
        out = tmp_path / name
        stream = train(pictures, out, folder, options=options, dtype="float32", adapter=adapter)
        return [*stream]

    alone, beside = events(None, "a.safetensors"), events(first, "b.safetensors")
    losses = [e.loss for es in (alone, beside) for e in es if isinstance(e, TrainingStep)]
    assert abs(losses[0] - losses[1]) > 1e-3  # the adapter has changed the model
    samples = [next(e.latents for e in es if isinstance(e, Result)) for es in (alone, beside)]
    assert relative_error(*samples) < 1e-5  # and the samples are the model's without it
    sizes = [(tmp_path / name).stat().st_size for name in ("a.safetensors", "b.safetensors")]
    assert sizes[0] == sizes[1]


def test_the_curve_shows_the_steps() -> None:
    losses = [1 / (1 + i / 10) for i in range(100)]
    image = curve(losses, 200)
    pixels = np.asarray(image.convert("L"), int)
    dark = pixels[60:420, 60:900] < 150
    columns = np.flatnonzero(dark.any(axis=0))
    assert columns.min() < 20 and 380 < columns.max() < 440  # half of the run is done
    first, last = (np.flatnonzero(dark[:, c]).mean() for c in (columns[5], columns[-5]))
    assert first < last - 100  # it falls
    assert curve([], 10).size == curve([0.5], 1).size == image.size


def test_the_running_mean_is_unbiased() -> None:
    assert running_mean(np.full(9, 0.3), 5).tolist() == pytest.approx([0.3] * 9)
    assert running_mean(np.array([1.0, 2.0, 4.0]), 1).tolist() == [1.0, 2.0, 4.0]
    assert mx.isfinite(mx.array(running_mean(np.arange(5.0), 3))).all().item()
