"""The whole pipeline beside the published one: latents after every step, and the pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_zimage import ZImage
from tests.measures import differing_pixels, relative_error

from . import limits, ours
from .cases import FULL_WIDTH, LIVE_ONLY, TINY, Case

pytestmark = pytest.mark.parity
Measure = Callable[[str, float, float], None]


def _compare(folder: Path, cases: list[Case], measure: Measure) -> None:
    from . import published

    pipe, model = published.load(folder), ZImage.load(folder, dtype="float32")
    for case in cases:
        theirs, mine = published.run(pipe, case), ours.run(model, case)
        assert len(mine.steps) == len(theirs.steps) == case.request["steps"]
        for a, b in zip(mine.steps, theirs.steps, strict=True):
            error = relative_error(a, b)
            measure(f"latents after every step, {case.kind}", error, limits.LATENTS)
        for a, b in zip(mine.embeds, theirs.embeds, strict=True):
            measure(
                f"text encoder, whole prompt, {case.kind}",
                relative_error(a, b),
                limits.TEXT_ENCODER,
            )
        for a, b in zip(mine.images, theirs.images, strict=True):
            measure(f"pixels off by one, {case.kind}", differing_pixels(a, b), limits.PIXELS)


@pytest.mark.parametrize("kind", ["small", "diffusers", "wide", "demo"])
def test_tiny(kind: str, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    cases = [case for case in (*TINY, *LIVE_ONLY) if case.kind == kind]
    _compare(checkpoint(kind), cases, measure)


@pytest.mark.large
def test_full_width(full_width: Path, measure: Measure) -> None:
    _compare(full_width, FULL_WIDTH, measure)


def test_embeddings_and_latents_in(checkpoint: Callable[[str], Path], measure: Measure) -> None:
    import torch

    from . import published

    folder = checkpoint("small")
    pipe, model = published.load(folder), ZImage.load(folder, dtype="float32")
    generator = np.random.RandomState(5)
    embeds = [generator.standard_normal((n, 48)).astype(np.float32) for n in (9, 40)]
    latents = generator.standard_normal((2, 16, 6, 4)).astype(np.float32)
    made = model.generate(prompt_embeds=embeds, latents=latents, steps=4, guidance=0)
    theirs = pipe(
        prompt_embeds=[torch.from_numpy(e) for e in embeds],
        latents=torch.from_numpy(latents.copy()),
        width=32,
        height=48,
        num_inference_steps=4,
        guidance_scale=0.0,
        output_type="latent",
    ).images.numpy()
    assert [result.image.size for result in made] == [(32, 48)] * 2
    for result, reference in zip(made, theirs, strict=True):
        error = relative_error(result.latents[0], reference)
        measure("latents from embeddings and latents", error, limits.LATENTS)
