"""Base, the model that is guided: from its files to the picture, on random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Result, Step, ZImage
from mlx_zimage.checkpoint.family import FAMILIES, MANIFEST
from mlx_zimage.files import write_json
from mlx_zimage.models.transformer import ZImageTransformer
from tests.make_checkpoint import KINDS, write_checkpoint

SMALL: dict[str, Any] = {"width": 32, "height": 32, "seed": 1}
BASE = replace(KINDS["small"], scheduler={"shift": 6.0})
TURBO = KINDS["small"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "ck", BASE)


@pytest.fixture(scope="module")
def model(folder: Path) -> ZImage:
    return ZImage.load(folder, dtype="float32")


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    forward = ZImageTransformer.__call__

    def counted(*args: Any) -> mx.array:
        calls.append(1)
        return forward(*args)

    monkeypatch.setattr(ZImageTransformer, "__call__", counted)
    return calls


def _latents(model: ZImage, **options: Any) -> np.ndarray:
    result = model.generate("a red fox", **{**SMALL, "steps": 4, **options})
    assert isinstance(result, Result)
    return np.array(result.latents)


def test_facts() -> None:
    base = next(family for family in FAMILIES if family.name == "base")
    assert (base.repo, base.shift, base.steps, base.guidance) == (
        "Tongyi-MAI/Z-Image",
        6.0,
        50,
        4.0,
    )


def test_a_picture_by_its_defaults(model: ZImage, forwards: list[int]) -> None:
    capabilities = model.capabilities()
    assert (capabilities.model, capabilities.steps, capabilities.guidance) == ("base", 50, 4.0)
    events = list(model.stream("a red fox", **SMALL))
    steps = [event for event in events if isinstance(event, Step)]
    assert len(steps) == 50 and len(forwards) == 100
    levels = [u / 50 for u in range(49, -1, -1)]
    assert [step.sigma for step in steps] == pytest.approx(
        [6 * u / (1 + 5 * u) for u in levels], abs=1e-6
    )
    request = events[-1].request  # type: ignore[union-attr]
    assert (request.steps, request.guidance, request.negative_prompt) == (50, 4.0, "")
    assert (request.cfg_normalization, request.cfg_truncation) == (0.0, 1.0)


@pytest.mark.parametrize("place", ["shift", "cache", "manifest"])
def test_recognised_by_shift_place_and_manifest(place: str, tmp_path: Path) -> None:
    if place == "cache":  # with Turbo's shift, so that the place alone decides
        folder = tmp_path / "hub/models--Tongyi-MAI--Z-Image/snapshots/0123abc"
        write_checkpoint(folder, TURBO)
    elif place == "manifest":
        folder = write_checkpoint(tmp_path / "copy", TURBO)
        write_json(folder / MANIFEST, {"source": "Tongyi-MAI--Z-Image"})
    else:
        folder = write_checkpoint(tmp_path / "mine", BASE)
    model = ZImage.load(folder)
    request = model.check("x")
    assert model.capabilities().model == "base"
    assert (request.steps, request.guidance) == (50, 4.0)


def test_turbos_place_is_not_bases(tmp_path: Path) -> None:
    folder = tmp_path / "hub/models--Tongyi-MAI--Z-Image-Turbo/snapshots/0123abc"
    model = ZImage.load(write_checkpoint(folder, BASE))
    assert (model.capabilities().model, model.check("x").steps) == ("turbo", 8)


def test_negative_prompts_act(model: ZImage) -> None:
    plain, negative = _latents(model), _latents(model, negative_prompt="blue, blurred")
    assert np.array_equal(plain, _latents(model, negative_prompt=""))
    assert not np.allclose(plain, negative, atol=1e-4)


def test_normalization_limits_the_length(model: ZImage) -> None:
    free, limited = (_latents(model, cfg_normalization=c, guidance=9.0) for c in (0.0, 1.0))
    assert np.linalg.norm(limited) < np.linalg.norm(free)
    assert np.array_equal(_latents(model, cfg_normalization=900.0, guidance=9.0), free)


def test_truncation_ends_guidance_early(model: ZImage, forwards: list[int]) -> None:
    """Times of four steps at shift 6: 0, 0.053, 0.143, 0.333."""
    for truncation, guided in ((1.0, 4), (0.3, 3), (0.1, 2), (0.0, 1)):
        forwards.clear()
        _latents(model, cfg_truncation=truncation)
        assert len(forwards) == 4 + guided


def test_without_guidance(model: ZImage, forwards: list[int]) -> None:
    _latents(model, guidance=0)
    assert len(forwards) == 4
    request = model.check("x", nag=5, negative_prompt="blue")
    assert request.guidance == 0
