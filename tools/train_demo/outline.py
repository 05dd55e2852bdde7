"""How far the drawn edges lie from where they should be, in pixels.

The edge is where a pixel is half thing, half ground, found between the pixels' centres. The ideal
one is that of `scenes.paint`, in its place, so that what is moved or of another size counts too.
"""

import numpy as np
from PIL import Image

from .reading import APART
from .scenes import Scene, paint

FINE = 2  # times that a map is magnified: more points on an edge


def outlines(scene: Scene, image: Image.Image) -> list[float]:
    """Return the mean distance of each thing's edge to the ideal; a thing not drawn has none."""
    ideal = paint(scene, *image.size)
    distances = []
    for inside in _regions(scene, image.size):
        edges = [_edge(picture, inside) for picture in (image, ideal)]
        if all(len(edge) for edge in edges):
            distances.append(apart(*edges))
    return distances


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean distance from each curve's points (N, 2) to the other's nearest."""
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
    between = (squares - 2 * one @ other.T).clip(min=0)
    nearest = (np.sqrt(between.min(axis=axis)).mean() for axis in (0, 1))
    return float(sum(nearest)) / 2


def _regions(scene: Scene, size: tuple[int, int]) -> list[np.ndarray]:
    """Return a mask for each thing: the picture, or that half of it where it should be."""
    width, height = size
    if not scene.relation:
        return [np.ones((height, width), bool)]
    across, down = np.meshgrid(np.arange(width) < width / 2, np.arange(height) < height / 2)
    first = across if scene.relation == "left of" else down
    return [first, ~first]


def _edge(image: Image.Image, inside: np.ndarray) -> np.ndarray:
    """Return points (N, 2) on the edge of what lies inside the mask."""
    pixels = np.asarray(image.convert("RGB")).astype(float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    thing = inside & (np.sqrt(np.square(pixels - ground).sum(axis=-1)) > APART)
    if not thing.any():
        return np.empty((0, 2))
    way = np.median(pixels[thing], axis=0) - ground
    cover = np.where(inside, np.clip((pixels - ground) @ way / (way @ way), 0, 1), 0)
    return half_way(cover)


def half_way(cover: np.ndarray) -> np.ndarray:
    """Return points (N, 2) in pixels, x and y, where a map (H, W) passes one half."""
    height, width = cover.shape
    fine = np.asarray(
        Image.fromarray(cover.astype(np.float32)).resize(
            (width * FINE, height * FINE), Image.Resampling.BILINEAR
        )
    )
    points = []
    for axis in (0, 1):
        before, after = (fine[:-1], fine[1:]) if axis == 0 else (fine[:, :-1], fine[:, 1:])
        rows, columns = np.nonzero((before < 0.5) != (after < 0.5))
        low, high = before[rows, columns], after[rows, columns]
        share = (0.5 - low) / (high - low)
        down, across = (rows + share, columns) if axis == 0 else (rows, columns + share)
        points.append(np.stack([across + 0.5, down + 0.5], axis=-1) / FINE)
    return np.concatenate(points)
