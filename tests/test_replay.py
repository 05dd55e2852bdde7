"""A picture's file makes the same picture again, and tells if another model would draw it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Request, Result, ZImage, replay, save_picture
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from tests.checkpoint.broken import copy, shards

SMALL: dict[str, Any] = {"width": 32, "height": 32, "steps": 2}


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> ZImage:
    return ZImage.load(checkpoint("small"))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".avif"])
def test_the_same_bytes_again(model: ZImage, tmp_path: Path, ending: str) -> None:
    for number in range(5):
        first, again = tmp_path / f"{number}{ending}", tmp_path / f"{number}-again{ending}"
        options = {**SMALL, "steps": 1 + number % 2, "seed": number, "guidance": float(number % 3)}
        result = model.generate(f"picture {number}", **options)
        assert isinstance(result, Result)
        save_picture(result.image, first, result.metadata)
        replayed = model.generate(replay(first).request)
        assert isinstance(replayed, Result)
        save_picture(replayed.image, again, replayed.metadata)
        assert first.read_bytes() == again.read_bytes()


def test_one_picture_of_a_batch(model: ZImage, tmp_path: Path) -> None:
    results = model.generate(["a", "b"], **SMALL, seed=[3, 4])
    save_picture(results[1].image, tmp_path / "b.png", results[1].metadata)
    found = replay(tmp_path / "b.png")
    assert found.index == 1
    again = model.generate(found.request)
    assert isinstance(again, list)
    assert np.array_equal(np.asarray(again[found.index].image), np.asarray(results[1].image))


def test_a_flag_beside_it_overrides_a_field(model: ZImage, tmp_path: Path) -> None:
    result = model.generate("x", **SMALL, seed=3)
    save_picture(result.image, tmp_path / "a.png", result.metadata)
    changed = replay(tmp_path / "a.png", seed=4, width=48).request
    assert (changed.seed, changed.width, changed.height) == (4, 48, 32)


def test_another_model_is_told(
    model: ZImage, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    result = model.generate("x", **SMALL, seed=3)
    save_picture(result.image, tmp_path / "a.png", result.metadata)
    found = replay(tmp_path / "a.png")
    assert found.differences(model) == []
    assert found.differences(ZImage.load(copy(checkpoint("small"), tmp_path / "moved"))) == []
    other = ZImage.load(checkpoint("even"), quantize=8)
    lines = found.differences(other)
    assert [line.split()[0] for line in lines] == ["identity", "quantize"]
    assert lines[1] == "quantize is 8, and was None"


def test_identity_sees_changed_weights(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy(checkpoint("small"), tmp_path / "ck")
    before = Checkpoint.open(folder).identity
    assert before == Checkpoint.open(checkpoint("small")).identity
    (file, *_) = shards(folder / "vae")
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    mx.save_safetensors(str(file), {key: array * 1.001 for key, array in weights.items()})
    assert Checkpoint.open(folder).identity != before


def test_a_request_with_pictures_in_it(tmp_path: Path) -> None:
    """As data URLs, which come back to the same bytes."""
    pixels = np.random.RandomState(0).randint(0, 256, (20, 30, 4)).astype(np.uint8)
    request = Request("x", image=pixels, mask=Image.fromarray(pixels[..., 0]))
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", {"request": request.to_dict()})
    found = replay(tmp_path / "a.png").request
    assert found == request
    assert found.image is not None and not isinstance(found.image, tuple)
    assert np.array_equal(found.image.pixels, pixels)
