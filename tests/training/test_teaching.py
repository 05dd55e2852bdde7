"""A short training on the demo."""

from pathlib import Path

import numpy as np
import pytest

from mlx_zimage import Result, TrainingOptions, TrainingStep, ZImage, train
from tools.train_demo.scenes import Scene, Thing, paint

pytestmark = pytest.mark.slow


def test_a_short_training_moves_pictures_towards_what_it_is_shown(tmp_path: Path) -> None:
    """A word that the demo does not know comes to mean one picture."""
    scene = Scene("orange", (Thing("star", "purple", "large"),))
    picture = paint(scene, 128, 128)
    picture.save(tmp_path / "0.png")
    (tmp_path / "0.txt").write_text("zebra")
    options = TrainingOptions(
        steps=30, batch=4, rank=4, learning_rate=2e-3, warmup=5, sample_every=30,
        caption_dropout=0.0, checkpointing=False,
    )  # fmt: skip
    events = [*train(tmp_path, tmp_path / "a.safetensors", "demo", options=options)]
    losses = [event.loss for event in events if isinstance(event, TrainingStep)]
    after = next(event for event in events if isinstance(event, Result))
    before = ZImage.load("demo").generate(after.request)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])  # measured 0.23
    target = np.asarray(picture, float)
    distances = [np.abs(np.asarray(r.image, float) - target).mean() for r in (before, after)]
    assert distances[1] < 0.5 * distances[0]  # measured 0.03
