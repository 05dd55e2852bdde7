"""Our side of a case."""

import warnings
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_zimage import PromptTruncatedWarning, Result, Step, ZImage

from .cases import Case, PictureCase


@dataclass(frozen=True)
class Run:
    embeds: list[np.ndarray]  # the positive captions
    steps: list[np.ndarray]  # latents after each step
    images: list[np.ndarray]  # (H, W, 3) uint8


def run(model: ZImage, case: Case, **changes: object) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptTruncatedWarning)  # one case is too long on purpose
        pictures = case.pictures if isinstance(case, PictureCase) else {}
        events = list(model.stream(**{**case.request, **pictures, **changes}))
    results = [event for event in events if isinstance(event, Result)]
    return Run(
        embeds=[np.array(result.prompt_embeds.astype(mx.float32)) for result in results],
        steps=[np.array(event.latents) for event in events if isinstance(event, Step)],
        images=[np.asarray(result.image) for result in results],
    )
