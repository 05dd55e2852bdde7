"""Two figures of the documentation, on the demo: what variety does, and what tiles do.

    python -m tools.spread

Variety: how far apart pictures of four seeds are, the root mean square over pixels, with variety 1
over that without, for ten held-out prompts; and in how many everything is right. Tiles: the PSNR of
pictures that are enlarged in tiles against those that are enlarged as a whole, and the largest
difference on their plain ground, 8 pixels or more away from anything else.
"""

import itertools
import random
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageFilter

from mlx_zimage import ZImage, compare_pictures
from mlx_zimage.generation import hires

from .train_demo.captions import english
from .train_demo.evaluate import held_out
from .train_demo.reading import read, score

SEEDS, PROMPTS, TIMES = 4, 10, 3
LARGE = (
    ("the letter R in white on black", 1),
    ("a red circle on a blue background", 7),
    ("a green star on white", 1),
)
NEAR = 17  # pixels of a square around a pixel of the ground that must be ground
ALIKE = 25  # levels


def main() -> None:
    model = ZImage.load("demo")
    variety(model)
    for prompt, seed in LARGE:
        tiles(model, prompt, seed)


def variety(model: ZImage) -> None:
    generator = random.Random(3)
    apart: dict[int, list[float]] = {0: [], 1: []}
    right = {0: 0, 1: 0}
    for scene in held_out(PROMPTS, seed=21):
        prompt = english(scene, generator)
        for amount, found in apart.items():
            images = [model.generate(prompt, seed=s, variety=amount).image for s in range(SEEDS)]
            right[amount] += sum(score(scene, read(image)).everything for image in images)
            arrays = [np.asarray(image, np.float64) for image in images]
            pairs = itertools.combinations(arrays, 2)
            found += [float(((a - b) ** 2).mean() ** 0.5) for a, b in pairs]
    ratio = np.mean(apart[1]) / np.mean(apart[0])
    print(f"variety 1: {ratio:.3f} times as far apart; right {right[1]} and {right[0]} without it")


def tiles(model: ZImage, prompt: str, seed: int) -> None:
    tiled = model.generate(prompt, seed=seed, hires=TIMES).image
    with patch.object(hires, "WHOLE", TIMES):
        whole = model.generate(prompt, seed=seed, hires=TIMES).image
    a, b = (np.asarray(image, np.float64) for image in (tiled, whole))
    ground = Image.fromarray((abs(b - np.median(b, (0, 1))).max(-1) < ALIKE).astype(np.uint8) * 255)
    inner = np.asarray(ground.filter(ImageFilter.MinFilter(NEAR))) > 0
    largest = abs(a - b).max(-1)[inner].max()
    print(f"{prompt}: PSNR {compare_pictures(tiled, whole).psnr:.1f} dB, ground {largest:.0f}")


if __name__ == "__main__":
    main()
