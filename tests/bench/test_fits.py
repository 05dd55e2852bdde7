"""What fits on a machine, by the real model's shapes and without its weights."""

import mlx.core as mx

from mlx_zimage.bench.fits import PRECISIONS, SIDES, fits

GB = 10**9


def test_nothing_is_allocated() -> None:
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    rows = fits()
    assert mx.get_peak_memory() - before < 1_000_000
    assert [(row.quantize, row.side) for row in rows] == [(q, s) for q in PRECISIONS for s in SIDES]


def test_more_memory_fits_more() -> None:
    order = [None, "low", "staged", "resident"]
    for small, large in zip(fits(8 * GB), fits(64 * GB), strict=True):
        assert order.index(small.memory) <= order.index(large.memory)
    assert {row.memory for row in fits(1000 * GB)} == {"resident"}
    assert {row.memory for row in fits(1)} == {None}


def test_fewer_bits_take_less() -> None:
    peaks = {(row.quantize, row.side): row.peak for row in fits(1000 * GB)}
    for side in SIDES:
        assert peaks[4, side] < peaks[8, side] < peaks[None, side]
