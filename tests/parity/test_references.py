"""Our pipeline against what the published one made and was kept: no torch is needed here."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mlx_zimage import ZImage
from tests.measures import differing_pixels, relative_error

from . import limits, ours
from .cases import FULL_WIDTH, PICTURES, TINY, Case
from .reference_files import REFERENCES, stored

Measure = Callable[[str, float, float], None]


@cache
def _references(name: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCES / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def _compare(model: ZImage, case: Case, name: str, measure: Measure) -> None:
    about = json.loads((REFERENCES / f"{name}.json").read_text("utf-8"))
    recorded = next(c for c in about["cases"] if c["name"] == case.name)
    assert recorded["request"] == json.loads(json.dumps(case.request)), "make the references anew"
    kept = _references(name)
    made = ours.run(model, case, noise=about["noise"])
    theirs = kept[f"{case.name}/latents"]
    assert len(made.steps) == len(theirs)
    for step, latents in enumerate(made.steps):
        error = relative_error(latents, theirs[step])
        measure(f"latents after every step, kept, {case.kind}", error, limits.LATENTS)
    for i, image in enumerate(made.images):
        share = differing_pixels(image, kept[f"{case.name}/image/{i}"])
        measure(f"pixels off by one, kept, {case.kind}", share, limits.PIXELS)
    for i, embeds in enumerate(made.embeds):
        caption = kept[f"{case.name}/embeds/{i}"]
        error = relative_error(embeds[: len(caption)], caption)
        measure(f"text encoder, kept, {case.kind}", error, limits.TEXT_ENCODER)


@pytest.mark.parametrize("name", stored("small", "diffusers", "wide"))
def test_tiny(name: str, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    kind = name.split("-", maxsplit=1)[0]
    model = ZImage.load(checkpoint(kind), dtype="float32")
    for case in TINY:
        if case.kind == kind:
            _compare(model, case, name, measure)


@pytest.mark.parametrize("name", stored("pictures-small", "pictures-diffusers", "pictures-wide"))
def test_pictures(name: str, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    kind = name.split("-")[1]
    model = ZImage.load(checkpoint(kind), dtype="float32")
    for case in PICTURES:
        if case.kind == kind:
            _compare(model, case, name, measure)


@pytest.mark.large
@pytest.mark.parametrize("name", stored("full-width"))
def test_full_width(name: str, full_width: Path, measure: Measure) -> None:
    model = ZImage.load(full_width, dtype="float32")
    for case in FULL_WIDTH:
        _compare(model, case, name, measure)
