"""Two pictures held against each other: how alike they are, in numbers and side by side."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ..errors import RequestError
from .picture import Picture, PictureLike
from .sheet import contact_sheet

WINDOW = 11  # pixels: the side of SSIM's window
SIGMA = 1.5  # of its Gaussian
STABILITY = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # SSIM's constants for bytes
STRIP = 256  # rows that are compared at once


@dataclass(frozen=True)
class Comparison:
    """How two pictures of the same size differ, over all their channels.

    `psnr` and `ssim` are as in scikit-image: SSIM with a Gaussian window of 11 x 11 pixels, sigma
    1.5, without the border, as the mean of the channels. Transparency is one more channel where
    either picture has it.
    """

    psnr: float  # decibels; infinite for identical pictures
    ssim: float  # 1 for identical pictures
    largest: int  # the largest difference of two bytes
    differing: float  # the share of the pixels that differ
    first: Picture = field(repr=False)
    second: Picture = field(repr=False)

    @property
    def identical(self) -> bool:
        return self.largest == 0

    @property
    def magnification(self) -> int:
        """The factor by which `picture` makes differences visible."""
        return max(255 // self.largest, 1) if self.largest else 1

    def picture(self, labels: tuple[str, str] = ("first", "second")) -> Image.Image:
        """Return both pictures and their magnified difference, side by side."""
        first, second = _channels(self.first, self.second)
        distance = np.abs(first.astype(np.int16) - second)
        if distance.shape[2] == 4:  # a difference in transparency shows in all colours
            distance = np.maximum(distance[..., :3], distance[..., 3:])
        panel = Image.fromarray((distance * self.magnification).astype(np.uint8))
        pictures = [self.first.to_image(), self.second.to_image(), panel]
        names = [*labels, f"difference x {self.magnification}"]
        return contact_sheet([pictures], [], names, self.summary, largest=None)

    @property
    def summary(self) -> str:
        """One line for a person."""
        if self.identical:
            return "the pictures are identical"
        return (
            f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f}, largest difference {self.largest}, "
            f"{self.differing:.1%} of the pixels differ"
        )


def compare_pictures(first: PictureLike, second: PictureLike) -> Comparison:
    """Compare two pictures, each a path, a PIL image or an array (H, W, 3) of bytes."""
    pictures = Picture.read("the first picture", first), Picture.read("the second picture", second)
    sizes = [picture.size for picture in pictures]
    if sizes[0] != sizes[1]:
        one, other = (f"{width} x {height}" for width, height in sizes)
        raise RequestError(f"pictures to compare must be of one size, not {one} and {other}")
    if min(sizes[0]) < WINDOW:
        raise RequestError(
            f"pictures to compare must be at least {WINDOW} pixels wide and high, "
            f"not {sizes[0][0]} x {sizes[0][1]}"
        )
    a, b = _channels(*pictures)
    largest, differing, squares = 0, 0, 0
    for x, y in zip(_strips(a), _strips(b), strict=True):
        distance = np.abs(x.astype(np.int32) - y)
        largest = max(largest, int(distance.max()))
        differing += int(distance.any(axis=2).sum())
        squares += int(np.square(distance).sum())
    psnr = 10 * math.log10(255**2 * a.size / squares) if squares else math.inf
    return Comparison(psnr, similarity(a, b), largest, differing / a[..., 0].size, *pictures)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Return the structural similarity (SSIM) of two arrays (H, W, C) of bytes."""
    total, count, rows = 0.0, 0, len(a) - WINDOW + 1
    for start in range(0, rows, STRIP):  # overlapping, so that every window is seen once
        part = slice(start, min(start + STRIP, rows) + WINDOW - 1)
        values = _similarities(a[part].astype(np.float64), b[part].astype(np.float64))
        total, count = total + float(values.sum()), count + values.size
    return total / count


def _similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return SSIM at the middle of every window."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance_a = _blurred(a * a) - mean_a**2
    variance_b = _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    c1, c2 = STABILITY
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return np.asarray(above / below)


def _blurred(x: np.ndarray) -> np.ndarray:
    """Return weighted means over the windows that lie within (H, W, C): (H - 10, W - 10, C)."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    high, wide = x.shape[0] - WINDOW + 1, x.shape[1] - WINDOW + 1
    rows = sum(w * x[i : i + high] for i, w in enumerate(weights))
    return np.asarray(sum(w * rows[:, i : i + wide] for i, w in enumerate(weights)))


def _channels(first: Picture, second: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Return both pictures' bytes with the same channels."""
    if first.has_alpha == second.has_alpha:
        return first.pixels, second.pixels
    a, b = (np.asarray(picture.to_image().convert("RGBA")) for picture in (first, second))
    return a, b


def _strips(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), STRIP):
        yield x[start : start + STRIP]
