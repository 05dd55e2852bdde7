"""Masks: what of a picture is painted anew.

A mask is white where it paints. One with transparency paints where it is transparent instead, as
the picture editors' and OpenAI's do. It is hard (H, W, bool) wherever a soft edge is not said.
"""

import numpy as np
from PIL import Image

from .picture import Picture

HALF = 128  # levels from here on count as white, as in the published pipeline: 128 / 255 >= 0.5


def to_mask(picture: Picture) -> Image.Image:
    """Return a mask's levels as a grey image, or a coloured one that `harden` takes as well."""
    if picture.has_alpha:
        return Image.fromarray(255 - picture.pixels[..., 3])
    return Image.fromarray(picture.pixels)


def harden(image: Image.Image) -> np.ndarray:
    """Return where (H, W) an image is at least half white."""
    return np.asarray(image.convert("L")) >= HALF


def is_alike(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Return whether two sizes have the same aspect, to within a pixel of either."""
    difference = abs(mask[0] * image[1] - mask[1] * image[0])
    return difference <= max(*mask, *image)


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the (left, top, right, bottom) of what a mask paints, which must be something."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def feather(mask: np.ndarray, width: float) -> np.ndarray:
    """Return (H, W) float32: 1 in the mask, and falling to 0 over `width` pixels outside of it."""
    if not width or not mask.any():
        return mask.astype(np.float32)
    ramp = 1 - np.sqrt(_squared_distance(mask, int(np.ceil(width)))) / (width + 1)
    return np.asarray(np.clip(ramp, 0, 1), np.float32)


def _squared_distance(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return each pixel's squared distance to the mask, exact up to `reach` and large beyond it."""
    far = float(max(mask.shape) + reach) * 2
    height, width = mask.shape
    along = np.where(mask, 0.0, far).astype(np.float32)  # down each column
    for y in range(1, height):
        np.minimum(along[y], along[y - 1] + 1, out=along[y])
    for y in range(height - 2, -1, -1):
        np.minimum(along[y], along[y + 1] + 1, out=along[y])
    along *= along
    least = along.copy()
    for shift in range(1, min(reach, width - 1) + 1):
        aside = np.float32(shift * shift)
        np.minimum(least[:, shift:], along[:, :-shift] + aside, out=least[:, shift:])
        np.minimum(least[:, :-shift], along[:, shift:] + aside, out=least[:, :-shift])
    return least


def corners(mask: np.ndarray, factor: int) -> np.ndarray:
    """Return each block's top left pixel: the published mask of latents."""
    return mask[::factor, ::factor]


def touched(mask: np.ndarray, factor: int) -> np.ndarray:
    """Return which blocks a mask touches."""
    return np.asarray(_blocks(mask, factor).any(axis=(1, 3)))


def averages(mask: np.ndarray, factor: int) -> np.ndarray:
    """Return each block's mean."""
    return np.asarray(_blocks(mask, factor).mean(axis=(1, 3), dtype=np.float32))


def _blocks(mask: np.ndarray, factor: int) -> np.ndarray:
    height, width = mask.shape
    return mask.reshape(height // factor, factor, width // factor, factor)


def composed(above: np.ndarray, below: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lay one picture (H, W, 3) over another. Where the opacity is 0 or 1, no pixel changes."""
    mixed = below + opacity[..., None] * (above.astype(np.float32) - below)
    return np.asarray(mixed.round(), np.uint8)
