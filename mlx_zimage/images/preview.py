"""Small pictures of unfinished latents, by a linear map from a latent's channels to its colour."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CheckpointError

SIDE = 256
"""Pixels that a preview's shorter side is enlarged to, if the finished picture is that large."""
SAMPLES = 128  # latents that a map is fitted to
PATCH = 2  # latents along a side of each of them: one colour, away from and at the border
RIDGE = 1e-3  # keeps the map small in directions that decide no colour

_FLUX = (
    (-0.0346, 0.0244, 0.0681),
    (0.0034, 0.0210, 0.0687),
    (0.0275, -0.0668, -0.0433),
    (-0.0174, 0.0160, 0.0617),
    (0.0859, 0.0721, 0.0329),
    (0.0004, 0.0383, 0.0115),
    (0.0405, 0.0861, 0.0915),
    (-0.0236, -0.0185, -0.0259),
    (-0.0245, 0.0250, 0.1180),
    (0.1008, 0.0755, -0.0421),
    (-0.0515, 0.0201, 0.0011),
    (0.0428, -0.0012, -0.0036),
    (0.0817, 0.0765, 0.0749),
    (-0.1264, -0.0522, -0.1103),
    (-0.0280, -0.0881, -0.0499),
    (-0.1262, -0.0982, -0.0778),
)


@dataclass(frozen=True, eq=False)
class ColourMap:
    """A linear map from latents, as the sampler has them, to colours from -1 to 1."""

    matrix: np.ndarray  # (C, 3)
    bias: np.ndarray  # (3,)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], channels: int, where: str) -> "ColourMap":
        """Read what `to_dict` returned."""
        try:
            matrix = np.array(data["matrix"], np.float32)
            bias = np.array(data["bias"], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where} must hold numbers as 'matrix' and 'bias'") from error
        if matrix.shape != (channels, 3) or bias.shape != (3,):
            raise CheckpointError(
                f"{where} must hold a matrix of {channels} x 3 and a bias of 3, "
                f"not {matrix.shape} and {bias.shape}"
            )
        if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
            raise CheckpointError(f"{where} must hold finite numbers")
        return cls(matrix, bias)

    def to_dict(self) -> dict[str, Any]:
        """Return the map in the form that JSON takes."""
        matrix, bias = (
            np.round(a.astype(np.float64), 5).tolist() for a in (self.matrix, self.bias)
        )
        return {"matrix": matrix, "bias": bias}

    def picture(self, latents: np.ndarray, factor: int) -> Image.Image:
        """Return latents (C, h, w) as a picture; the finished one is `factor` times as large."""
        channels, height, width = latents.shape
        flat = latents.reshape(channels, -1).astype(np.float32, copy=False)
        colours = (self.matrix.T @ flat + self.bias[:, None]).reshape(3, height, width)
        unit = np.clip((np.nan_to_num(colours) + 1) / 2, 0, 1).transpose(1, 2, 0)
        image = Image.fromarray((unit * 255).astype(np.uint8))
        scale = min(max(-(-SIDE // min(image.size)), 1), factor)
        size = (width * scale, height * scale)
        return image if scale == 1 else image.resize(size, Image.Resampling.BICUBIC)


FLUX = ColourMap(np.array(_FLUX, np.float32), np.array((-0.0329, -0.0718, -0.0851), np.float32))
"""The map of Flux's VAE, which Z-Image uses; its numbers are widely published."""


def fit(decode: Callable[[np.ndarray], np.ndarray], channels: int) -> ColourMap:
    """Return the map that comes nearest to what a VAE decodes.

    `decode` turns latents (B, C, h, w) into pixels (B, H, W, 3) from -1 to 1. It is shown patches
    that are the same latent all over, and the mean colour of each is fitted by least squares: the
    map says which colour an area has, and nothing of its texture. The patches are always the same.
    """
    draws = np.random.RandomState(0).standard_normal((SAMPLES, channels)).astype(np.float32)
    patches = np.ascontiguousarray(
        np.broadcast_to(draws[..., None, None], (SAMPLES, channels, PATCH, PATCH))
    )
    colours = np.clip(np.nan_to_num(decode(patches)), -1, 1).mean(axis=(1, 2), dtype=np.float64)
    inputs = np.column_stack([draws, np.ones(SAMPLES)]).astype(np.float64)
    squares = inputs.T @ inputs / SAMPLES + RIDGE * np.eye(channels + 1)
    solution = np.linalg.solve(squares, inputs.T @ colours / SAMPLES).astype(np.float32)
    return ColourMap(solution[:-1], solution[-1])
