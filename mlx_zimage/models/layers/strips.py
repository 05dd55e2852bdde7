"""Large images in strips of rows: each strip is computed before the next is begun.

A convolution takes a strip with a row of each neighbour, so that joined strips are what the image
would be at once. Evaluation is what bounds the memory: strips are evaluated on every device.
"""

from collections.abc import Callable, Iterator

import mlx.core as mx

from ... import device
from .convolution import Conv2d

Strips = list[mx.array]
"""An image (B, H, W, C). A function that takes one empties it, so that strips are freed early."""

CPU_PIXELS = 1 << 15
GPU_PIXELS = 1 << 18  # where an evaluation costs more, and a convolution copies nothing


def strip_pixels() -> int:
    """Return how many pixels a strip has on this device, at the image's own size."""
    return CPU_PIXELS if device.kind() == "cpu" else GPU_PIXELS


def split(x: mx.array, heights: list[int]) -> Strips:
    if len(heights) == 1:
        return [x]
    ends = [sum(heights[: i + 1]) for i in range(len(heights) - 1)]
    strips = [mx.contiguous(strip) for strip in mx.split(x, ends, axis=1)]
    mx.eval(strips)
    return strips


def convolve(
    conv: Conv2d, strips: Strips, before: Callable[[mx.array], mx.array], trim: int = 0
) -> Iterator[mx.array]:
    """Yield a 3x3 convolution of `before(strip)` for each strip.

    `trim`: how many rows too many `before` makes of a neighbour's row.
    """
    above: mx.array | None = None
    while strips:
        x = strips.pop(0)
        rows = [x] if above is None else [above, x]
        rows += [strips[0][:, :1]] if strips else []
        top, bottom = above is None, not strips
        above = None if bottom else mx.contiguous(x[:, -1:])
        window = before(rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=1))
        if top and bottom:
            out = conv(window)
        else:
            ends = (0 if top else trim, window.shape[1] - (0 if bottom else trim))
            window = window[:, slice(*ends)]
            if top or bottom:
                window = mx.pad(window, [(0, 0), (int(top), int(bottom)), (0, 0), (0, 0)])
            out = conv.convolve(window, (0, 1))
        mx.eval(out, *([] if above is None else [above]))
        del x, rows, window
        yield out
