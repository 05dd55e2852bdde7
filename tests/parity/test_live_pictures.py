"""Pictures from pictures beside the published pipelines: latents after every step, and pixels."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_zimage import ZImage
from tests.measures import differing_pixels, relative_error

from . import limits, ours
from .cases import PICTURES

pytestmark = pytest.mark.parity
Measure = Callable[[str, float, float], None]


@pytest.mark.parametrize("kind", ["small", "diffusers", "wide", "demo"])
def test_pictures(kind: str, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    from . import published

    folder = checkpoint(kind)
    pipe, model = published.load(folder), ZImage.load(folder, dtype="float32")
    for case in PICTURES:
        if case.kind != kind:
            continue
        what = "img2img" if case.masks is None else "inpaint"
        theirs, mine = published.run(pipe, case), ours.run(model, case)
        assert len(mine.steps) == len(theirs.steps), case.name
        for a, b in zip(mine.steps, theirs.steps, strict=True):
            error = relative_error(a, b)
            measure(f"{what}, latents after every step, {kind}", error, limits.LATENTS)
        for a, b in zip(mine.images, theirs.images, strict=True):
            measure(f"{what}, pixels off by one, {kind}", differing_pixels(a, b), limits.PIXELS)
