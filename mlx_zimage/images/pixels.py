"""From the autoencoder's pixels to pictures."""

import mlx.core as mx
import numpy as np
from PIL import Image


def to_image(pixels: mx.array) -> Image.Image:
    """Return pixels of (H, W, 3) from -1 to 1 as an 8-bit picture, rounded as diffusers rounds."""
    unit = mx.clip(pixels.astype(mx.float32) * 0.5 + 0.5, 0.0, 1.0)
    return Image.fromarray((np.array(unit) * 255).round().astype(np.uint8))
