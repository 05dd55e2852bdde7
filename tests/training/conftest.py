"""Small runs: pictures with captions, and what trains on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import TrainingOptions, train
from mlx_zimage.training.run import TrainingEvent

SMALL: dict[str, Any] = {
    "steps": 4,
    "rank": 2,
    "learning_rate": 1e-2,
    "warmup": 1,
    "resolution": 32,
    "targets": ("layers.*.attention", "context_refiner"),
    "caption_dropout": 0.3,
    "save_every": 1000,
    "sample_every": 0,
    "checkpointing": False,
}
SIZES = ((64, 64), (64, 64), (96, 48))


def write_pictures(folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES) -> Path:
    """Write random pictures with captions of different lengths beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (width, height) in enumerate(sizes):
        pixels = np.random.RandomState(number).randint(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("the red one " * (1 + 3 * number), "utf-8")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "photos")


Train = Callable[..., list[TrainingEvent]]


@pytest.fixture
def small_run(checkpoint: Callable[[str], Path]) -> Train:
    """Return a function that trains the smallest checkpoint, and returns its events."""

    def run(images: Path, output: Path, *, stop: int | None = None, **given: Any) -> Any:
        arguments = {n: given.pop(n) for n in ("resume", "overwrite", "quantize") if n in given}
        model = given.pop("model", None) or checkpoint("diffusers")
        options = TrainingOptions(**{**SMALL, **given})
        stream = train(images, output, model, options=options, dtype="float32", **arguments)
        events = []
        for event in stream:
            events.append(event)
            if getattr(event, "number", None) == stop and type(event).__name__ == "TrainingStep":
                stream.close()
        return events

    return run
