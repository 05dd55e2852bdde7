"""Teach the demo a shape that it does not know, and score what it then draws.

    python -m tools.teach_demo draw PICTURES
    mlx-zimage train PICTURES diamond.safetensors --model demo ...
    python -m tools.teach_demo score [--lora diamond.safetensors]

`draw` paints scenes with a diamond, and some without, so that the old shapes stay. `score` asks for
held-out scenes of either kind, by prompts in words of their own; docs/train.md says what came of
it. Letters and digits, which the demo knows less well, are not asked for beside a diamond. A new
colour cannot be taught: the demo's VAE knows eight, and decodes any other to one of them.
"""

import argparse
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlx_zimage import ZImage

from .train_demo import evaluate, reading, scenes
from .train_demo.captions import english
from .train_demo.scenes import Scene, paint, random_scene

SHAPE = "diamond"
OUTLINE = [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)]
NEW, OLD = 200, 300  # pictures to train on
SIDE = 128


@contextmanager
def new_shape() -> Iterator[None]:
    """Let the new shape be painted and read."""
    known = scenes.SHAPES
    scenes.OUTLINES[SHAPE] = lambda: OUTLINE
    vars(reading)["SHAPES"] = (*known, SHAPE)
    try:
        yield
    finally:
        del scenes.OUTLINES[SHAPE]
        vars(reading)["SHAPES"] = known


def new_scenes(count: int, seed: int, *, held_out: bool) -> list[Scene]:
    """Return scenes of shapes, one of which is the new one."""
    generator = random.Random(seed)
    chosen: list[Scene] = []
    while len(chosen) < count:
        scene = random_scene(generator)
        things = list(scene.things)
        place = generator.randrange(len(things))
        things[place] = replace(things[place], name=SHAPE)
        scene = replace(scene, things=tuple(things))
        if scene.held_out == held_out and not any(thing.is_glyph for thing in things):
            chosen.append(scene)
    return chosen


def old_scenes(count: int, seed: int) -> list[Scene]:
    """Return scenes that the demo was trained on."""
    generator = random.Random(seed)
    chosen: list[Scene] = []
    while len(chosen) < count:
        scene = random_scene(generator)
        if not scene.held_out:
            chosen.append(scene)
    return chosen


def draw(folder: Path) -> None:
    """Write pictures with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = [*new_scenes(NEW, 3, held_out=False), *old_scenes(OLD, 3)]
    generator = random.Random(4)
    with new_shape():
        for number, scene in enumerate(asked):
            paint(scene, SIDE, SIDE).save(folder / f"{number:03}.png")
            (folder / f"{number:03}.txt").write_text(english(scene, generator) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw")
    drawing.add_argument("folder", type=Path)
    scoring = commands.add_parser("score")
    scoring.add_argument("--lora", default=None)
    scoring.add_argument("--model", default="demo")
    scoring.add_argument("--new", type=int, default=100)
    scoring.add_argument("--old", type=int, default=200)
    options = parser.parse_args()
    if options.command == "draw":
        draw(options.folder)
        return
    loras = [] if options.lora is None else [options.lora]
    model = ZImage.load(options.model, loras=loras)
    old, new = evaluate.held_out(options.old), new_scenes(options.new, 5, held_out=True)
    with new_shape():
        print(
            evaluate.table(
                {"new": evaluate.evaluate(model, new), "old": evaluate.evaluate(model, old)}
            )
        )


if __name__ == "__main__":
    main()
