"""Previews of a run's steps: by the VAE's map, and by a decoder of the user's."""

import json
import pickle
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_zimage import CheckpointError, RequestError, Result, Step, ZImage
from mlx_zimage.checkpoint.checkpoint import Checkpoint, official_shapes
from mlx_zimage.generation import preview
from mlx_zimage.generation.preview import FILE, TinyFile, colour_map, fitted_map, is_flux
from mlx_zimage.hub.locate import DEMO
from mlx_zimage.images.preview import FLUX
from mlx_zimage.memory.store import Store
from mlx_zimage.models.tiny_decoder import TinyDecoder
from tests.make_checkpoint import random_tensor

PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def model() -> ZImage:
    return ZImage.load("demo", dtype="float32")


def _steps(model: ZImage, **options: Any) -> tuple[list[Step], list[Result]]:
    options = {"seed": 7, "steps": 2, **options}
    events = list(model.stream(options.pop("prompt", PROMPT), **options))
    steps = [event for event in events if isinstance(event, Step)]
    return steps, [event for event in events if isinstance(event, Result)]


def _tiny_weights(channels: int = 16) -> dict[str, mx.array]:
    """Random weights by diffusers' keys, in the shapes of files."""
    shapes = official_shapes(TinyDecoder(channels))
    return {f"decoder.{k}": mx.array(random_tensor(k, shape)) for k, shape in shapes.items()}


def _flat(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Return them by madebyollin's keys, in which the first layer bends the latents."""

    def shifted(match: re.Match[str]) -> str:
        return f"{int(match[1]) + 1}."

    return {re.sub(r"^decoder\.layers\.(\d+)\.", shifted, k): w for k, w in weights.items()}


def _save(path: Path, weights: dict[str, mx.array]) -> Path:
    mx.save_safetensors(str(path), weights)
    return path


def test_previews_look_like_the_picture(model: ZImage) -> None:
    """The mean error of a colour, against the picture in the same size."""
    steps, (result,) = _steps(model, steps=8)
    for step in (steps[0], steps[4], steps[-1]):
        picture = step.preview()
        assert picture.size == (128, 128) and picture.mode == "RGB"
        small = [
            np.asarray(p.resize((16, 16), Image.Resampling.BOX), float)
            for p in (picture, result.image)
        ]
        assert np.abs(small[0] - small[1]).mean() < 40  # 24 to 25; black against it: 114


def test_a_preview_is_of_the_clean_estimate(model: ZImage) -> None:
    """x0 = x - sigma v: at the last step of a straight path, the latents themselves."""
    steps, _ = _steps(model)
    last = steps[-1]
    assert last.sigma == 0
    latents = np.array(last.latents)[0]
    colours = colour_map(Checkpoint.open(DEMO), model._store)
    drawn = np.asarray(last.preview()).astype(int)
    assert np.abs(drawn - np.asarray(colours.picture(latents, 8))).max() <= 1


def test_each_picture_of_a_batch(model: ZImage) -> None:
    steps, _ = _steps(model, prompt=[PROMPT, "a purple star on orange"])
    first, second = (np.asarray(steps[-1].preview(i), float).mean((0, 1)) for i in range(2))
    assert first[2] > first[0] and second[0] > second[2]  # blue, orange
    for index in (2, -1, "0"):
        with pytest.raises(RequestError, match="index must be one of the 2 pictures"):
            steps[0].preview(index)  # type: ignore[arg-type]


def test_nothing_is_done_before_it_is_asked_for(
    model: ZImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(preview, "colour_map", lambda *_: calls.append(1) or FLUX)
    fresh = ZImage.load("demo", dtype="float32")
    steps, (result,) = _steps(fresh)
    assert not calls
    steps[0].preview()
    steps[1].preview()
    assert len(calls) == 1
    again, (same,) = _steps(model)
    for step in again:
        step.preview()
    assert same.image.tobytes() == result.image.tobytes()


def test_from_another_thread_and_after_the_run(model: ZImage) -> None:
    steps, _ = _steps(model)
    pictures: list[Image.Image] = []
    thread = threading.Thread(target=lambda: pictures.append(steps[0].preview()))
    thread.start()
    thread.join()
    assert pictures[0].tobytes() == steps[0].preview().tobytes()


def test_writing_into_a_steps_latents_changes_no_preview(model: ZImage) -> None:
    steps, _ = _steps(model)
    expected = steps[0].preview().tobytes()
    steps[0].latents[:] = 0
    assert steps[0].preview().tobytes() == expected


def test_a_pickled_step_has_no_preview(model: ZImage) -> None:
    steps, _ = _steps(model)
    again = pickle.loads(pickle.dumps(steps[0]))
    assert repr(again) == repr(steps[0]) and "draw" not in repr(again)
    assert mx.array_equal(again.latents, steps[0].latents).item()
    with pytest.raises(RequestError, match="this step has no preview"):
        again.preview()


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["resident", "staged"])
@pytest.mark.parametrize("kind", ["small", "diffusers", "wide"])
def test_any_vae(kind: str, memory: Any, checkpoint: Callable[[str], Path]) -> None:
    """The map of a VAE that is not Flux's is fitted: near to what a patch of one colour decodes."""
    opened = Checkpoint.open(checkpoint(kind))
    assert not is_flux(opened.vae)
    model = ZImage.load(checkpoint(kind), memory=memory, dtype="float32")
    steps, _ = _steps(model, width=64, height=64, guidance=0)
    factor = opened.vae.scale_factor
    assert steps[0].preview().size == (64 // factor * factor,) * 2
    colours = fitted_map(opened, model._store)
    assert np.array_equal(colours.matrix, model._previewer._map.matrix)  # type: ignore[union-attr]


def test_the_demos_map_is_the_fitted_one(model: ZImage) -> None:
    """vae/preview.json holds what `fitted_map` gives, so that the demo's first preview is quick."""
    data = json.loads((DEMO / "vae" / FILE).read_text())
    fitted = fitted_map(Checkpoint.open(DEMO), model._store)
    assert np.abs(np.array(data["matrix"]) - fitted.matrix).max() < 1e-3
    assert np.abs(np.array(data["bias"]) - fitted.bias).max() < 1e-3


def test_a_checkpoints_own_map(tmp_path: Path) -> None:
    folder = shutil.copytree(DEMO, tmp_path / "ck")
    (folder / "vae" / FILE).write_text(json.dumps({"matrix": [[0] * 3] * 16, "bias": [1, -1, 0]}))
    opened = Checkpoint.open(folder)
    colours = colour_map(opened, Store(opened, dtype="float32"))
    assert colours.picture(np.ones((16, 2, 2), np.float32), 8).getpixel((0, 0)) == (255, 0, 127)
    (folder / "vae" / FILE).write_text("{")
    with pytest.raises(CheckpointError, match=r"preview\.json cannot be read"):
        colour_map(opened, Store(opened, dtype="float32"))


def test_flux_is_known_by_its_config() -> None:
    config = Checkpoint.open(DEMO).vae
    data = {**vars(config), "scaling_factor": 0.3611, "shift_factor": 0.1159}
    assert is_flux(type(config)(**{**data, "block_out_channels": (128, 256, 512, 512)}))
    assert not is_flux(type(config)(**data))
    assert not is_flux(config)


@pytest.mark.parametrize("layout", [pytest.param("flat", marks=pytest.mark.slow), "diffusers"])
def test_a_decoder_of_either_layout(layout: str, tmp_path: Path) -> None:
    weights = _tiny_weights()
    stored = {"encoder.layers.0.weight": mx.zeros((64, 3, 3, 3)), **weights}
    path = _save(tmp_path / "taef1.safetensors", _flat(weights) if layout == "flat" else stored)
    model = ZImage.load("demo", dtype="float32", preview_decoder=path)
    steps, _ = _steps(model)
    decoder = TinyFile.open(path).load(mx.float32)
    pixels = np.array(decoder.decode(steps[-1].latents)[0])
    expected = np.clip(pixels * 0.5 + 0.5, 0, 1) * 255
    picture = steps[-1].preview()
    assert picture.size == (128, 128)
    assert np.abs(np.asarray(picture) - expected).max() < 0.6
    model.unload()
    assert model._previewer._decoder is None
    assert steps[-1].preview().tobytes() == picture.tobytes()


def _without(weights: dict[str, mx.array], key: str) -> dict[str, mx.array]:
    return {k: w for k, w in weights.items() if k != key}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"x": mx.zeros((2,))}, r"is no decoder of TAEF1: its tensor 'layers\.0\.weight'"),
        (_without(_tiny_weights(), "decoder.layers.18.bias"), r"its tensor 'layers\.18\.bias'"),
        ({**_tiny_weights(), "decoder.x": mx.zeros((2,))}, "its tensor 'x'"),
        ({"0.weight": mx.zeros((64, 3, 3, 3)), "0.bias": mx.zeros((64,))}, "no decoder of TAEF1"),
        ({k: w.astype(mx.int32) for k, w in _tiny_weights().items()}, "must be one of F16"),
    ],
)
def test_wrong_files(weights: dict[str, mx.array], message: str, tmp_path: Path) -> None:
    path = _save(tmp_path / "taef1.safetensors", weights)
    with pytest.raises(CheckpointError, match=message) as caught:
        ZImage.load("demo", preview_decoder=path)
    assert "\n" not in str(caught.value)


def test_a_decoder_of_another_latent_space(tmp_path: Path) -> None:
    path = _save(tmp_path / "taesd.safetensors", _tiny_weights(4))
    with pytest.raises(RequestError, match="for latents of 4 channels and 8 pixels, and this"):
        ZImage.load("demo", preview_decoder=path)


@pytest.mark.parametrize("name", ["taef1_decoder.pth", "taef1_decoder.safetensors"])
@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02"])
def test_a_pickle_is_refused(name: str, start: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(start + bytes(2000))
    with pytest.raises(CheckpointError, match="is a pickle, which can run any program"):
        ZImage.load("demo", preview_decoder=tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "x.safetensors", "does not exist"),
        (tmp_path, "is a folder; name the file in it"),
    ):
        with pytest.raises(CheckpointError, match=message):
            ZImage.load("demo", preview_decoder=path)
    with pytest.raises(RequestError, match="preview_decoder must be a path, not 3"):
        ZImage.load("demo", preview_decoder=3)  # type: ignore[arg-type]
