"""Large latents in overlapping tiles: each is a picture of its own to the transformer.

The predictions of tiles are mixed at every step, by weights that fall to nothing at a tile's inner
edges, so that no step leaves a seam for the next one to keep.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np

Size = tuple[int, int]
"""A height and a width, in latents."""
OVERLAP = 4  # a tile shares at least this part of its side, the fourth, with the next


def starts(length: int, tile: int, unit: int) -> list[int]:
    """Return where tiles begin along a side, evenly spaced and at multiples of `unit`."""
    stride = max((tile - tile // OVERLAP) // unit, 1) * unit
    count = -(-(length - tile) // stride) + 1
    if count < 2:
        return [0]
    return [round(i * (length - tile) / (count - 1) / unit) * unit for i in range(count)]


def tiled(
    predict: Callable[[mx.array], mx.array], latents: mx.array, tile: Size, unit: int
) -> mx.array:
    """Return predictions (B, C, h, w) in float32, mixed from tiles of one size."""
    height, width = latents.shape[2:]
    tops, lefts = starts(height, tile[0], unit), starts(width, tile[1], unit)
    high, wide = _shares(height, tile[0], tops), _shares(width, tile[1], lefts)
    rows = []
    for top, vertical in zip(tops, high, strict=True):
        row = mx.zeros((*latents.shape[:2], tile[0], width))
        for left, horizontal in zip(lefts, wide, strict=True):
            part = latents[:, :, top : top + tile[0], left : left + tile[1]]
            mixed = predict(part).astype(mx.float32) * mx.array(horizontal)
            row[..., left : left + tile[1]] += mixed
            mx.eval(row)  # so that only one tile's arrays exist at a time
        rows.append(row * mx.array(vertical[:, None]))
    out = mx.zeros(latents.shape)
    for top, row in zip(tops, rows, strict=True):
        out[:, :, top : top + tile[0]] += row
    return out


def _shares(length: int, tile: int, begins: list[int]) -> list[np.ndarray]:
    """Return each tile's share of every latent that it covers along a side; they add up to 1."""
    weights = np.zeros((len(begins), length))
    positions = np.arange(tile) + 0.5
    for number, start in enumerate(begins):
        weight = np.ones(tile)
        if number > 0:  # from nothing at the edge to all where the tile before ends
            weight *= _rise(positions / (begins[number - 1] + tile - start))
        if number < len(begins) - 1:
            weight *= _rise((tile - positions) / (start + tile - begins[number + 1]))
        weights[number, start : start + tile] = weight
    weights /= weights.sum(axis=0)
    return [
        weights[number, start : start + tile].astype(np.float32)
        for number, start in enumerate(begins)
    ]


def _rise(x: np.ndarray) -> np.ndarray:
    """Return a smooth step from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
