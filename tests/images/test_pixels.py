"""From the autoencoder's pixels to a picture."""

import mlx.core as mx
import numpy as np

from mlx_zimage.images.pixels import to_image


def test_rounding_is_numpys() -> None:
    """Halves go to the even neighbour; what is out of range is clipped."""
    levels = np.array([-3.0, -1.0, 0.0, 1.0, 9.0, (0.5 / 255) * 2 - 1, (1.5 / 255) * 2 - 1])
    image = to_image(mx.array(np.tile(levels[:, None], (1, 3))[None].astype(np.float32)))
    assert np.asarray(image)[0, :5, 0].tolist() == [0, 0, 128, 255, 255]
    assert image.mode == "RGB"
