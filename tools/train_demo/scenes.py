"""What the demo checkpoint learns to draw: one or two objects on a plain background.

A scene is drawn from a random generator, painted at any size with smooth edges, and described by
`captions`. Some combinations are held out of training, to be asked for in the evaluation.
"""

import math
import random
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "red": (214, 39, 40),
    "green": (38, 158, 70),
    "blue": (34, 84, 204),
    "yellow": (247, 208, 48),
    "white": (248, 248, 248),
    "black": (22, 22, 22),
    "orange": (242, 132, 28),
    "purple": (126, 58, 172),
}
ALIKE = {frozenset(pair) for pair in (("yellow", "white"), ("orange", "yellow"), ("red", "orange"))}
"""Too near each other to be told apart at a glance: never one on the other."""
SHAPES = ("circle", "square", "triangle", "star", "ring", "heart", "cross")
GLYPHS = tuple(string.ascii_uppercase + string.digits)
RADII = {"small": 0.11, "medium": 0.18, "large": 0.26}  # of the shorter side
RADIUS_STEP, CENTRE_STEP = 4, 8  # pixels; the VAE's places are 8 apart
ROWS, COLUMNS = ("top", "centre", "bottom"), ("left", "centre", "right")
PLACES = tuple((row, column) for row in ROWS for column in COLUMNS)
RELATIONS = ("left of", "above")
SMOOTH = 4  # painted this many times larger, then averaged
HELD_OUT = 10  # one combination in so many


@dataclass(frozen=True)
class Thing:
    """An object: a shape's name, or one letter or digit."""

    name: str
    colour: str
    size: str

    @property
    def is_glyph(self) -> bool:
        return self.name in GLYPHS


@dataclass(frozen=True)
class Scene:
    background: str
    things: tuple[Thing, ...]
    place: tuple[str, str] = ("centre", "centre")  # of a single thing
    relation: str = ""  # of the first of two things to the second

    @property
    def held_out(self) -> bool:
        """Decided by what is drawn in which colours, so that every such scene is."""
        parts = [self.background, *(f"{t.name} {t.colour}" for t in self.things)]
        return zlib.crc32(" / ".join(parts).encode()) % HELD_OUT == 0

    def centres(self, width: int, height: int) -> list[tuple[float, float]]:
        """Return where each thing is, in pixels: whole steps from the picture's middle."""
        if self.relation:
            reach = 0.23
            steps = {"left of": [(-1, 0), (1, 0)], "above": [(0, -1), (0, 1)]}[self.relation]
        else:
            reach = 0.17 if self.things[0].size == "large" else 0.25
            steps = [(COLUMNS.index(self.place[1]) - 1, ROWS.index(self.place[0]) - 1)]
        across, down = (nearest(reach * side, CENTRE_STEP) for side in (width, height))
        return [(width / 2 + x * across, height / 2 + y * down) for x, y in steps]


def nearest(value: float, step: int) -> int:
    """Return the multiple of a step that lies next to a value."""
    return step * round(value / step)


def radius_of(size: str, width: int, height: int) -> int:
    """Return a thing's radius in pixels.

    It is a whole number of steps, so that pictures of all sizes have things of a few sizes only:
    a small network learns the look of each letter at each of them.
    """
    return nearest(RADII[size] * min(width, height), RADIUS_STEP)


def random_scene(generator: random.Random, *, things: int | None = None) -> Scene:
    """Any scene; `things` is 1 or 2, or left to chance."""
    count = things or (2 if generator.random() < 0.35 else 1)
    background = generator.choice(list(COLOURS))
    far = [c for c in COLOURS if c != background and frozenset((c, background)) not in ALIKE]
    made = tuple(
        Thing(
            generator.choice(SHAPES if generator.random() < 0.5 else GLYPHS),
            generator.choice(far),
            generator.choice(["small", "medium"] if count == 2 else list(RADII)),
        )
        for _ in range(count)
    )
    if count == 2:
        return Scene(background, made, relation=generator.choice(RELATIONS))
    return Scene(background, made, place=generator.choice(PLACES))


def paint(scene: Scene, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), COLOURS[scene.background])
    for thing, (x, y) in zip(scene.things, scene.centres(width, height), strict=True):
        large = Image.new("L", (width * SMOOTH, height * SMOOTH))
        radius = radius_of(thing.size, width, height) * SMOOTH
        stamp(ImageDraw.Draw(large), thing.name, x * SMOOTH, y * SMOOTH, radius)
        image.paste(COLOURS[thing.colour], mask=large.reduce(SMOOTH))
    return image


def stamp(draw: ImageDraw.ImageDraw, name: str, x: float, y: float, radius: float) -> None:
    """Paint a shape or glyph in white, centred, within a circle or square of that radius."""
    if name in GLYPHS:
        _glyph(draw, name, x, y, radius)
    elif name == "circle":
        draw.ellipse(_box(x, y, radius), fill=255)
    elif name == "ring":
        draw.ellipse(_box(x, y, radius), fill=255)
        draw.ellipse(_box(x, y, 0.58 * radius), fill=0)
    elif name == "cross":
        arm = 0.34 * radius
        draw.rectangle((x - radius, y - arm, x + radius, y + arm), fill=255)
        draw.rectangle((x - arm, y - radius, x + arm, y + radius), fill=255)
    else:
        draw.polygon([(x + radius * a, y + radius * b) for a, b in OUTLINES[name]()], fill=255)


def _box(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _glyph(draw: ImageDraw.ImageDraw, text: str, x: float, y: float, radius: float) -> None:
    """As tall as the circle, or as wide; a thick stroke makes Pillow's own font bold."""
    font = ImageFont.load_default(100)
    stroke = 3
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font, stroke_width=stroke)
    scale = 2 * radius / max(bottom - top, right - left)
    font = ImageFont.load_default(100 * scale)
    stroke = max(round(stroke * scale), 1)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font, stroke_width=stroke)
    corner = (x - (left + right) / 2, y - (top + bottom) / 2)
    draw.text(corner, text, fill=255, font=font, stroke_width=stroke)


def _square() -> list[tuple[float, float]]:
    return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]


def _triangle() -> list[tuple[float, float]]:
    return [(0.0, -0.9), (1.0, 0.85), (-1.0, 0.85)]


def _star() -> list[tuple[float, float]]:
    turns = [(-math.pi / 2 + math.pi * i / 5, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
    return [(r * math.cos(t), r * math.sin(t) + 0.05) for t, r in turns]


def _heart() -> list[tuple[float, float]]:
    points = []
    for i in range(200):
        t = 2 * math.pi * i / 200
        down = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -(down + 2.5) / 16))
    return points


OUTLINES: dict[str, Callable[[], list[tuple[float, float]]]] = {
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
}
