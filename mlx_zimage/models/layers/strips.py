"""Large images in strips of rows: what is made of one is evaluated before the next is begun."""

from collections.abc import Callable, Iterator

import mlx.core as mx

from .linear import Conv2d

Strips = list[mx.array]
"""An image (B, H, W, C). Whoever is given one empties it, so that it is freed on the way."""


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
    """A 3x3 convolution of `before` of each strip, and of a row of its neighbours.

    `trim`: rows that `before` makes of a neighbour's and that are too many.
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
            edges = [(0, 0), (int(top), int(bottom)), (0, 0), (0, 0)]
            window = mx.pad(window[:, slice(*ends)], edges)
            out = mx.conv2d(window, conv.weight, padding=(0, 1)) + conv.bias
        mx.eval(out, *([] if above is None else [above]))
        del x, rows, window
        yield out
