"""Folders that hold weight files in no official layout: what is looked at, and what is said."""

import os
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_zimage import CheckpointError, RequestError, ZImage
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.files import read_files
from mlx_zimage.quantization.recipe import Quantization
from tests.checkpoint.broken import copy
from tests.weights.formats import foreign


def _message(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        ZImage.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert _message(tmp_path) == (
        f"{tmp_path} is no checkpoint: it has no model_index.json and none of "
        "text_encoder/config.json, transformer/config.json, vae/config.json, and no weight file"
    )


def test_weight_files_of_other_models_are_not_blamed(tmp_path: Path) -> None:
    for name in ("llama", "whisper"):
        mx.save_safetensors(str(tmp_path / f"{name}.safetensors"), {"w": mx.zeros((2,))})
    text = _message(tmp_path)
    assert text.startswith(f"{tmp_path} is no checkpoint: it has no model_index.json and none of")
    assert "(llama.safetensors, whisper.safetensors) holds a component of Z-Image" in text


def test_a_large_tree_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither deep folders nor links out of the folder are followed."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep/er").mkdir(parents=True)
    folder = tmp_path / "home"
    (folder / "a/b/c/d").mkdir(parents=True)
    mx.save_safetensors(str(folder / "a/b/c/d/x.safetensors"), {"w": mx.zeros((2,))})
    (folder / "link").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    listed: list[str] = []
    iterdir = Path.iterdir

    def watched(self: Path) -> object:
        listed.append(os.path.relpath(self, folder))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", watched)
    monkeypatch.setattr(os, "walk", lambda *_, **__: pytest.fail("the tree was walked"))
    assert "and no weight file" in _message(folder)
    assert {*listed} <= {".", "a", "link", "loop"}


@pytest.mark.parametrize("place", ["", "diffusion_models", "split_files/diffusion_models"])
def test_the_places_of_comfy_files(
    checkpoint: Callable[[str], Path], tmp_path: Path, place: str
) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    arrays = foreign.transformer(checkpoint("small"))
    foreign.write(tmp_path / place / "z.safetensors", arrays)
    mx.save_safetensors(str(tmp_path / place / "other.safetensors"), {"w": mx.zeros((2,))})
    assert read_files([tmp_path]).keys() == {"transformer"}


def test_a_missing_path() -> None:
    with pytest.raises(CheckpointError, match="/nowhere/x does not exist"):
        Checkpoint.open(Path("/nowhere/x"))


def test_a_folder_with_an_index_but_nothing_else(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy(checkpoint("small"), tmp_path / "ck")
    (folder / "vae/config.json").unlink()
    assert "vae/config.json is missing" in _message(folder)


def test_the_group_size_that_would_fit_is_named(checkpoint: Callable[[str], Path]) -> None:
    """192 is a multiple of 64 and of 32, not of 128."""
    stored = Checkpoint.open(checkpoint("even"))["transformer"]
    with pytest.raises(RequestError, match="192 wide; ask for a group size of 32 or 64"):
        stored.packings(Quantization.parse(4, 128))
