"""A check of the table that says from how many rows on quantized weights are unpacked.

MLX's quantized kernel is timed against unpacking and an ordinary product, over the same rows. A
timing holds so many products that a launch is a small part of it.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx

from .. import device
from ..models.layers.quantized import unpack, unpacks_from

PACKINGS = (
    *(("affine", bits, 64) for bits in (2, 3, 4, 5, 6, 8)),
    ("mxfp4", 4, 32),
    ("mxfp8", 8, 32),
    ("nvfp4", 4, 16),
)
"""Mode, bits and group size."""
ROWS = (1, 4, 16, 64, 256, 1024, 4096)
CPU_ROWS = (1, 2, 4, 8, 16, 32, 64)
SIDE, CPU_SIDE = 3840, 2048  # of a square matrix; a CPU unpacks no more numbers at once
SECONDS = 0.02  # that a timing takes at least
TIMINGS = 5
MOST = 1024  # products in a timing
CLEAR = 0.4  # a CPU's ratio of seconds after which more rows are not tried: it falls with them
WORTH = 1.3  # a table is right where its way is nowhere slower than the other by this factor

Product = Callable[[mx.array], mx.array]


@dataclass(frozen=True)
class Probed:
    """One packing in one type, and from how many rows on unpacking is faster; None for never."""

    mode: str
    bits: int
    group_size: int
    dtype: str
    table_rows: int | None
    measured_rows: int | None
    agrees: bool


def probe() -> Iterator[Probed]:
    """Measure every packing in float32 and in the device's 16-bit types."""
    for mode, bits, group_size in PACKINGS:
        for dtype in (mx.float32, mx.bfloat16):
            yield probe_packing(mode, bits, group_size, dtype)


def probe_packing(mode: str, bits: int, group_size: int, dtype: mx.Dtype) -> Probed:
    """Measure one packing in one type."""
    ratios, table = dict(_ratios(mode, bits, group_size, dtype)), unpacks_from(mode, bits, dtype)
    return Probed(
        mode=mode,
        bits=bits,
        group_size=group_size,
        dtype=str(dtype).removeprefix("mlx.core."),
        table_rows=_finite(table),
        measured_rows=_finite(wins_from(ratios)),
        agrees=is_right(table, ratios),
    )


def _finite(rows: float) -> int | None:
    return None if math.isinf(rows) else int(rows)


def wins_from(ratios: dict[int, float]) -> float:
    """Return the least rows from which on unpacking is always faster; `inf` where it never is.

    `ratios`: the seconds of the unpacked way over the kernel's, by rows.
    """
    slower = [rows for rows, ratio in ratios.items() if ratio >= 1]
    return min((rows for rows in ratios if rows > max(slower, default=0)), default=math.inf)


def is_right(table_rows: float, ratios: dict[int, float]) -> bool:
    """Tell whether unpacking from `table_rows` on is nowhere slower by WORTH than the other way."""
    return all(
        ratio < WORTH if rows >= table_rows else ratio > 1 / WORTH for rows, ratio in ratios.items()
    )


def _ratios(mode: str, bits: int, group_size: int, dtype: mx.Dtype) -> Iterator[tuple[int, float]]:
    """Yield rows, and the seconds of the unpacked way over the kernel's."""
    cpu = device.kind() == "cpu"
    side = CPU_SIDE if cpu else SIDE
    square = mx.random.normal((side, side), key=mx.random.key(0)).astype(dtype)
    words, scales, *zeros = mx.quantize(square, group_size, bits, mode=mode)
    biases = zeros[0] if zeros else None
    mx.eval(words, scales, *zeros)
    del square

    def kernel(x: mx.array) -> mx.array:
        return mx.quantized_matmul(
            x, words, scales, biases, transpose=True, group_size=group_size, bits=bits, mode=mode
        )

    def unpacked(x: mx.array) -> mx.array:
        return x @ unpack(words, scales, biases, group_size, bits, mode, dtype).T

    for rows in CPU_ROWS if cpu else ROWS:
        x = mx.ones((rows, side), dtype)
        mx.eval(x)
        ratio = _ratio(unpacked, kernel, x)
        yield rows, ratio
        if cpu and ratio < CLEAR:
            return


def _ratio(a: Product, b: Product, x: mx.array) -> float:
    """Return the seconds of one product over another's: the least of each, as they take turns."""
    counts = [_count(product, x) for product in (a, b)]
    seconds = [
        [_timed(product, x, count) / count for product, count in zip((a, b), counts, strict=True)]
        for _ in range(TIMINGS)
    ]
    return min(pair[0] for pair in seconds) / min(pair[1] for pair in seconds)


def _count(product: Product, x: mx.array) -> int:
    """Return how many products a timing must hold to last SECONDS; the first call warms up."""
    _timed(product, x, 1)
    count = 1
    while _timed(product, x, count) < SECONDS and count < MOST:
        count *= 2
    return count


def _timed(product: Product, x: mx.array, count: int) -> float:
    begun = time.perf_counter()
    mx.eval([product(x) for _ in range(count)])
    return time.perf_counter() - begun
