"""What both sides are asked to make, in the words of our `Request`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

PROMPT = "the red circle on the ice"
OTHER = (
    "a photo of a fox in the snow, 一只狐狸, with more words than fit in the shortest padding 🦊"
)
NEGATIVE = "blurred"
GUIDED = {"guidance": 4.0, "negative_prompt": NEGATIVE}


@dataclass(frozen=True)
class Case:
    name: str
    kind: str  # of checkpoint
    width: int
    height: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> dict[str, Any]:
        base = {"prompt": PROMPT, "steps": 8, "seed": 42, "guidance": 0.0}
        return {**base, "width": self.width, "height": self.height, **self.options}


TINY = [
    Case("small-turbo", "small", 64, 96),
    Case("small-smallest", "small", 32, 32, {"prompt": "", "seed": 0}),
    Case("small-guided", "small", 48, 32, GUIDED),
    Case("small-normalized", "small", 32, 48, {**GUIDED, "cfg_normalization": 1.0}),
    Case(
        "small-truncated",
        "small",
        32,
        32,
        {**GUIDED, "cfg_normalization": 0.5, "cfg_truncation": 0.4},
    ),
    Case("small-batch", "small", 32, 48, {"prompt": [PROMPT, OTHER]}),
    Case("small-batch-guided", "small", 32, 32, {"prompt": [PROMPT, OTHER], **GUIDED}),
    Case("small-seeds", "small", 48, 48, {"prompt": [PROMPT, PROMPT], "seed": [1, 2**40 + 5]}),
    Case("small-sigmas", "small", 32, 32, {"steps": 3, "schedule": [1.0, 0.6, 0.3]}),
    Case("small-long", "small", 32, 32, {"prompt": "the snow is red; " * 60}),
    Case("diffusers-turbo", "diffusers", 32, 32),
    Case("diffusers-wide", "diffusers", 64, 36, GUIDED),
    Case("wide-turbo", "wide", 64, 32),
    Case("wide-batch", "wide", 40, 64, {"prompt": [OTHER, PROMPT], **GUIDED}),
]
FULL_WIDTH = [
    Case("full-width-turbo", "full-width", 64, 96),
    Case("full-width-guided", "full-width", 32, 32, {**GUIDED, "cfg_normalization": 1.0}),
]
LIVE_ONLY = [
    Case("small-512", "small", 512, 512),
    Case("small-512-wide", "small", 512, 256),
    Case("demo", "demo", 128, 128, {"prompt": "a red circle on a blue background"}),
    Case("demo-other-side", "demo", 160, 96, {"prompt": "白色背景左上角的小的绿色三角形"}),
    Case("demo-guided", "demo", 128, 128, {**GUIDED, "prompt": "the letter R in white on black"}),
]


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """A picture (H, W, 3) with edges and grain, the same on every machine."""
    y, x = np.mgrid[:height, :width]
    waves = [(3 * x + 5 * y) % 97, (x // 9 + y // 7) % 2 * 99, (7 * x - 2 * y) % 61]
    grain = np.random.RandomState(seed).randint(0, 120, (height, width, 3))
    return (np.stack(waves, axis=-1) + grain + 20).astype(np.uint8)


def grey_mask(width: int, height: int, seed: int) -> np.ndarray:
    """A mask (H, W) of all levels, many of them near the half."""
    y, x = np.mgrid[:height, :width]
    ramp = 255 * (x + y) // (width + height)
    grain = np.random.RandomState(seed).randint(-40, 40, (height, width))
    return np.clip(ramp + grain, 0, 255).astype(np.uint8)


def coloured_mask(width: int, height: int, seed: int) -> np.ndarray:
    levels = [grey_mask(width, height, seed + i) for i in range(3)]
    return np.stack(levels, axis=-1)


@dataclass(frozen=True)
class PictureCase(Case):
    """One with pictures: each source is (width, height, seed), a list gives one for each prompt.

    Without `masks` it is the published img2img pipeline, with them the inpainting one.
    """

    images: tuple[int, int, int] | list[tuple[int, int, int]] = (32, 32, 0)
    masks: tuple[int, int, int] | list[tuple[int, int, int]] | None = None
    mask_is_coloured: bool = False

    @property
    def pictures(self) -> dict[str, Any]:
        """The fields that JSON does not hold."""
        mask = coloured_mask if self.mask_is_coloured else grey_mask
        fields: dict[str, Any] = {"image": _each(picture, self.images), "fit": "stretch"}
        if self.masks is not None:
            fields |= {"mask": _each(mask, self.masks), "keep_unmasked": False}
        return fields


def _each(draw: Any, places: Any) -> Any:
    return [draw(*place) for place in places] if isinstance(places, list) else draw(*places)


TWO = {"prompt": [PROMPT, OTHER]}
TWO_SEEDS = {**TWO, "seed": [1, 2**40 + 5]}
PICTURES = [
    PictureCase("image-weak", "small", 64, 96, {"strength": 0.3}, (75, 101, 1)),
    PictureCase("image-middle", "small", 48, 32, {"strength": 0.6}, (48, 32, 2)),
    PictureCase("image-full", "small", 48, 64, {"strength": 1.0}, (48, 64, 3)),
    PictureCase("image-rounded", "small", 32, 32, {"strength": 0.9, "steps": 9}, (40, 33, 4)),
    PictureCase("image-guided", "small", 80, 48, {"strength": 0.6, **GUIDED}, (90, 50, 5)),
    PictureCase(
        "image-truncated",
        "small",
        32,
        48,
        {"strength": 0.8, **GUIDED, "cfg_normalization": 0.5, "cfg_truncation": 0.4},
        (32, 48, 6),
    ),
    PictureCase("image-shared", "small", 48, 32, {"strength": 0.6, **TWO}, (50, 32, 7)),
    PictureCase(
        "image-each", "small", 32, 48, {"strength": 0.6, **TWO}, [(32, 48, 8), (80, 50, 9)]
    ),
    PictureCase(
        "image-shared-seeds", "small", 32, 32, {"strength": 0.6, **TWO_SEEDS}, (32, 32, 10)
    ),
    PictureCase(
        "image-each-seeds",
        "small",
        32,
        48,
        {"strength": 0.5, **TWO_SEEDS, **GUIDED},
        [(32, 48, 11), (40, 60, 12)],
    ),
    PictureCase(
        "image-sigmas",
        "small",
        32,
        32,
        {"strength": 0.7, "steps": 3, "schedule": [1.0, 0.6, 0.3]},
        (32, 32, 13),
    ),
    PictureCase("mask-full", "small", 64, 96, {"strength": 1.0}, (75, 101, 1), (75, 101, 1)),
    PictureCase("mask-middle", "small", 96, 48, {"strength": 0.6}, (96, 48, 2), (96, 48, 2)),
    PictureCase("mask-other-size", "small", 64, 96, {"strength": 0.9}, (64, 96, 3), (128, 192, 3)),
    PictureCase(
        "mask-coloured",
        "small",
        64,
        64,
        {"strength": 0.8, **GUIDED},
        (70, 70, 4),
        (35, 35, 4),
        True,
    ),
    PictureCase("mask-shared", "small", 64, 48, {"strength": 1.0, **TWO}, (64, 48, 5), (64, 48, 5)),
    PictureCase(
        "mask-each-seeds",
        "small",
        64,
        48,
        {"strength": 0.7, **TWO_SEEDS, **GUIDED},
        [(64, 48, 6), (128, 96, 7)],
        [(64, 48, 8), (64, 48, 9)],
    ),
    PictureCase("diffusers-image", "diffusers", 64, 36, {"strength": 0.6}, (66, 39, 1)),
    PictureCase(
        "diffusers-mask", "diffusers", 36, 64, {"strength": 1.0, **GUIDED}, (36, 64, 2), (36, 64, 2)
    ),
    PictureCase("wide-image", "wide", 64, 32, {"strength": 0.3, **GUIDED}, (64, 32, 1)),
    PictureCase("wide-mask", "wide", 40, 64, {"strength": 0.6, **TWO}, (40, 64, 2), (40, 64, 2)),
    # There are no kept references of the demo.
    PictureCase("demo-image", "demo", 160, 96, {"strength": 0.6}, (170, 100, 1)),
    PictureCase("demo-mask", "demo", 128, 128, {"strength": 1.0}, (128, 128, 2), (128, 128, 2)),
]
