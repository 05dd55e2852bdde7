"""Look at a picture and say what is on it: the judge of the demo checkpoint.

No network and no training: the nearest colours, connected patches, and the best fit among the
shapes and glyphs as `scenes` paints them.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .scenes import (
    COLOURS,
    COLUMNS,
    GLYPHS,
    RADII,
    ROWS,
    SHAPES,
    SMOOTH,
    Scene,
    Thing,
    radius_of,
    stamp,
)

SIDE = 32  # of a patch when it is compared
APART = 60  # levels between a thing and its background
LEAST = 0.004  # of the picture: what is smaller is a speck, not a thing


@dataclass(frozen=True)
class Found:
    """One patch of colour on the background."""

    colour: str
    shape: str  # the best fit among the shapes
    glyph: str  # the best fit among letters and digits
    centre: tuple[float, float]  # shares of width and height
    size: str

    @property
    def place(self) -> tuple[str, str]:
        column, row = (min(int((share - 0.4) / 0.2 + 1), 2) for share in self.centre)
        return ROWS[max(row, 0)], COLUMNS[max(column, 0)]


@dataclass(frozen=True)
class Reading:
    background: str
    found: tuple[Found, ...]  # the largest first
    specks: int  # patches too small to be things: droplets


@dataclass(frozen=True)
class Match:
    """What of one thing was drawn. `name` is the shape or the glyph."""

    colour: bool
    name: bool
    size: bool


@dataclass(frozen=True)
class Score:
    """What of a scene a picture shows."""

    background: bool
    place: bool
    things: tuple[Match, ...]  # as the scene has them

    @property
    def everything(self) -> bool:
        right = all(match.colour and match.name and match.size for match in self.things)
        return self.background and self.place and right


def read(image: Image.Image) -> Reading:
    pixels = np.asarray(image.convert("RGB")).astype(float)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(edge, axis=0)
    away = np.sqrt(np.square(pixels - ground).sum(axis=-1)) > APART
    patches = sorted(_patches(away), key=lambda mask: -int(mask.sum()))
    things = [mask for mask in patches if mask.mean() >= LEAST]
    return Reading(
        background=_nearest(ground),
        found=tuple(_describe(pixels, ground, mask) for mask in things),
        specks=_specks([mask for mask in patches if mask.mean() < LEAST], things),
    )


def score(scene: Scene, reading: Reading) -> Score:
    """Each thing must be there, once, and in its place; nothing else may be."""
    found = list(reading.found)
    background = reading.background == scene.background
    if len(found) != len(scene.things):
        nothing = Match(colour=False, name=False, size=False)
        return Score(background, place=False, things=(nothing,) * len(scene.things))
    if scene.relation:
        axis = 0 if scene.relation == "left of" else 1
        found.sort(key=lambda thing: thing.centre[axis])
        between = [abs(found[0].centre[a] - found[1].centre[a]) for a in (0, 1)]
        place = between[axis] > between[1 - axis]
    else:
        place = found[0].place == scene.place
    pairs = zip(scene.things, found, strict=True)
    return Score(background, place, tuple(_match(thing, there) for thing, there in pairs))


def _match(thing: Thing, there: Found) -> Match:
    return Match(
        colour=there.colour == thing.colour,
        name=thing.name == (there.glyph if thing.is_glyph else there.shape),
        size=there.size == thing.size,
    )


def _nearest(colour: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: float(np.square(colour - COLOURS[name]).sum()))


def _specks(small: list[np.ndarray], things: list[np.ndarray]) -> int:
    """But for those that touch a thing nearly: the tips of a star."""
    near = np.zeros((1, 1), bool)
    if things:
        whole = Image.fromarray((np.any(things, axis=0) * 255).astype(np.uint8))
        near = np.asarray(whole.filter(ImageFilter.MaxFilter(5))) > 0
    return sum(not (mask & near).any() for mask in small)


def _patches(away: np.ndarray) -> list[np.ndarray]:
    """Connected areas, corners included."""
    left = Image.fromarray((away * 255).astype(np.uint8)).copy()
    masks: list[np.ndarray] = []
    while True:
        rows, columns = np.nonzero(np.asarray(left) == 255)
        if not len(rows):
            return masks
        seed = (int(columns[0]), int(rows[0]))
        ImageDraw.floodfill(left, seed, 128)
        mask = np.asarray(left) == 128
        masks.append(mask)
        left.paste(0, mask=Image.fromarray((mask * 255).astype(np.uint8)))


def _describe(pixels: np.ndarray, ground: np.ndarray, mask: np.ndarray) -> Found:
    height, width = mask.shape
    colour = np.median(pixels[mask], axis=0)
    # How far each pixel has gone from the ground to the colour: edges are soft.
    way = colour - ground
    cover = np.clip((pixels - ground) @ way / (way @ way), 0, 1)
    top, bottom, left, right = _bounds(mask)
    patch = _squared(cover[top:bottom, left:right])
    return Found(
        colour=_nearest(colour),
        shape=_best(patch, SHAPES),
        glyph=_best(patch, GLYPHS),
        centre=((left + right) / 2 / width, (top + bottom) / 2 / height),
        size=_size(max(bottom - top, right - left), width, height),
    )


def _size(extent: int, width: int, height: int) -> str:
    """Return the size whose things' longer side comes next: they fill 0.8 to 1 of their circle."""
    return min(RADII, key=lambda name: abs(1.8 * radius_of(name, width, height) - extent))


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _squared(cover: np.ndarray) -> np.ndarray:
    """Fitted into a square, its proportions kept."""
    height, width = cover.shape
    scale = SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    fitted = Image.fromarray((cover * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    square = Image.new("L", (SIDE, SIDE))
    square.paste(fitted, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square) / 255


def _best(patch: np.ndarray, names: tuple[str, ...]) -> str:
    """By the share of the area that both cover."""

    def fit(name: str) -> float:
        template = _template(name)
        return float(np.minimum(patch, template).sum() / np.maximum(patch, template).sum())

    return max(names, key=fit)


@cache
def _template(name: str) -> np.ndarray:
    side = 64 * SMOOTH
    large = Image.new("L", (side, side))
    stamp(ImageDraw.Draw(large), name, side / 2, side / 2, 0.4 * side)
    cover = np.asarray(large.reduce(SMOOTH)) / 255
    top, bottom, left, right = _bounds(cover > 0.25)
    return _squared(cover[top:bottom, left:right])
