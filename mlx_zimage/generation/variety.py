"""Ways to make pictures of one prompt differ: `variety`, and variations of one seed's picture."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import RequestError
from ..request import Request
from ..sampling.noise import TORCH_CPU, generator
from .run import Context, Run

VARIED_SHARE = 0.25  # of the steps, at least one: 2 of Turbo's 8
SCALE = 4.0  # of the noise at variety 1, in typical numbers of the caption
VARIATION_STRENGTH = 0.2
STREAM = 0x7A61  # sets the captions' noise apart from every other that comes from the seed


class VarietyFeature:
    """`variety`: noise on the caption in the first steps, where a picture's layout is decided."""

    def fill(self, request: Request, context: Context) -> Mapping[str, Any]:
        return {}

    def plan(self, run: Run, context: Context) -> Run:
        request = run.request
        if not request.variety:
            return run
        amount = request.variety

        def vary(caption: mx.array, index: int) -> mx.array:
            return varied(caption, amount, caption_seed(request.seed or 0, index))

        steps = max(round(VARIED_SHARE * len(run.schedule)), 1)
        return replace(run, vary=vary, varied_steps=steps)


class VariationFeature:
    """`variation_of`: the noise of another seed to begin with; `Run.noise` turns it."""

    def fill(self, request: Request, context: Context) -> Mapping[str, Any]:
        if request.variation_of is not None:
            if request.latents is not None:
                raise RequestError(
                    "variation_of has no effect with latents, which stand in for a seed's noise; "
                    "leave one out"
                )
            return {"variation_strength": VARIATION_STRENGTH}
        if request.variation_strength is not None:
            raise RequestError(
                "variation_strength has no effect without variation_of; name the seed to vary, or "
                "leave it out"
            )
        return {}

    def plan(self, run: Run, context: Context) -> Run:
        return run


def caption_seed(seeds: int | tuple[int, ...], index: int) -> int:
    """Return the seed of one caption's noise: with a seed each, that of the picture alone."""
    entropy = [seeds, index] if isinstance(seeds, int) else [seeds[index], 0]
    return int(np.random.SeedSequence([*entropy, STREAM]).generate_state(1, np.uint64)[0])


def varied(caption: mx.array, amount: float, seed: int) -> mx.array:
    """Move a caption (length, width) at random by `amount`.

    The noise is measured by each token's median number: text encoders make a few huge ones, and
    noise as large as their mean square would drown all others.
    """
    noise = mx.array(generator(TORCH_CPU, seed).normal(caption.size).reshape(caption.shape))
    numbers = caption.astype(mx.float32)
    typical = mx.sort(mx.abs(numbers), axis=-1)[:, caption.shape[1] // 2, None]
    return (numbers + amount * SCALE * typical * noise).astype(caption.dtype)
