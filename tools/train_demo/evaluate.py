"""Score a demo checkpoint by what it draws, on our port.

    python -m tools.train_demo.evaluate [--model demo] [--count 300] [--only English q4 ...]

Prompts for scenes held out of training, one picture each, 8 steps, the scene's number as the seed.
`reading` looks at what was drawn, and `outline` measures how far its edges are from the ideal ones.
The same scenes are asked for in English and in Chinese, with 8 and 4 bits, with 4 calibrated
ones, and at other sizes; then the autoencoder alone is held against held-out pictures.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np
from PIL import Image

from mlx_zimage import Conversion, ZImage, convert_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.hub.locate import locate
from mlx_zimage.images.pixels import to_image

from .captions import caption
from .outline import outlines
from .reading import read, score
from .scenes import Scene, paint, random_scene

OTHER_SIZES = ((96, 96), (160, 112), (112, 192), (192, 192))
FRAMES = {1: "one thing", 2: "two things"}


@dataclass
class Tally:
    """Right answers among all, by question."""

    right: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    outlines: list[float] = field(default_factory=list)  # pixels, of each thing that was drawn

    def add(self, question: str, right: bool) -> None:
        self.asked[question] = self.asked.get(question, 0) + 1
        self.right[question] = self.right.get(question, 0) + right

    def add_scene(self, scene: Scene, image: Image.Image) -> None:
        reading = read(image)
        found = score(scene, reading)
        self.add("background", found.background)
        self.add("place", found.place)
        for thing, match in zip(scene.things, found.things, strict=True):
            self.add("colour", match.colour)
            self.add("glyph" if thing.is_glyph else "shape", match.name)
            self.add("size", match.size)
        self.add(FRAMES[len(scene.things)], found.everything)
        self.add("everything", found.everything)
        self.add("no specks", reading.specks == 0)
        self.outlines += outlines(scene, image)

    def share(self, question: str) -> float:
        return self.right[question] / self.asked[question]

    @property
    def outline(self) -> float:
        """The mean distance between the edges that were drawn and those that were asked for."""
        return float(np.mean(self.outlines)) if self.outlines else math.inf


def held_out(count: int, seed: int = 1) -> list[Scene]:
    generator = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(generator)
        if scene.held_out:
            scenes.append(scene)
    return scenes


def prompts(scenes: Sequence[Scene], language: str = "en", seed: int = 2) -> list[str]:
    generator = random.Random(seed)
    return [caption(scene, generator, language) for scene in scenes]


def evaluate(
    model: ZImage,
    scenes: Sequence[Scene],
    language: str = "en",
    size: tuple[int, int] = (128, 128),
) -> Tally:
    tally = Tally()
    width, height = size
    for number, (scene, prompt) in enumerate(zip(scenes, prompts(scenes, language), strict=True)):
        image = model.generate(prompt, width=width, height=height, seed=number).image
        tally.add_scene(scene, image)
    return tally


def evaluate_calibrated(model: str, scenes: Sequence[Scene]) -> Tally:
    """Evaluate a copy of the checkpoint in 4 bits, calibrated on its own prompts."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "q4"
        for _ in convert_checkpoint(
            Conversion.plan(locate(model), quantize=4, calibrate=True), copy
        ):
            pass
        return evaluate(ZImage.load(str(copy)), scenes)


def round_trip(folder: Path, scenes: Sequence[Scene], side: int = 128) -> tuple[float, Tally]:
    """The autoencoder's PSNR in decibels, of 8-bit pictures, and what is read on them."""
    vae = Checkpoint.open(folder)["vae"].load(mx.float32)
    tally, errors = Tally(), []
    for scene in scenes:
        picture = np.asarray(paint(scene, side, side), np.float32)
        latents = vae.encode(mx.array(picture[None] / 127.5 - 1))
        image: Image.Image = to_image(vae.decode(latents)[0])
        tally.add_scene(scene, image)
        errors.append(np.square(np.asarray(image, np.float32) - picture).mean())
    return float(10 * np.log10(255**2 / np.mean(errors))), tally


def table(columns: dict[str, Tally]) -> str:
    """In Markdown, a row for each question."""
    rows = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for question in next(iter(columns.values())).asked:
        shares = (f"{tally.share(question):.1%}" for tally in columns.values())
        rows.append(f"| {question} | " + " | ".join(shares) + " |")
    pixels = (f"{tally.outline:.2f}" for tally in columns.values())
    rows.append("| outline, pixels | " + " | ".join(pixels) + " |")
    return "\n".join(rows)


def columns(model: str, scenes: list[Scene]) -> dict[str, Callable[[], Tally]]:
    """What can be asked, by name."""
    plain = cache(lambda: ZImage.load(model))
    asked: dict[str, Callable[[], Tally]] = {
        "English": lambda: evaluate(plain(), scenes),
        "Chinese": lambda: evaluate(plain(), scenes, "zh"),
        "q8": lambda: evaluate(ZImage.load(model, quantize=8), scenes),
        "q4": lambda: evaluate(ZImage.load(model, quantize=4), scenes),
        "q4 calibrated": lambda: evaluate_calibrated(model, scenes),
    }
    for size in OTHER_SIZES:
        asked[f"{size[0]}x{size[1]}"] = partial(lambda at: evaluate(plain(), scenes, size=at), size)
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--only", nargs="*", help="English, q4, 96x96, ...")
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    scenes = held_out(options.count)
    begun = time.monotonic()
    chosen = columns(options.model, scenes)
    found = {name: chosen[name]() for name in options.only or chosen}
    psnr, found["VAE alone"] = round_trip(locate(options.model), scenes)
    seconds = time.monotonic() - begun
    print(table(found))
    print(f"VAE round trip: {psnr:.2f} dB. {len(scenes)} held-out scenes each, {seconds:.0f} s.")
    if options.out:
        figures = {
            name: {**{q: tally.share(q) for q in tally.asked}, "outline": tally.outline}
            for name, tally in found.items()
        }
        options.out.write_text(json.dumps({"psnr": psnr, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
