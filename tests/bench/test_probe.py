"""The check of the table that says when to unpack quantized weights."""

import math

import mlx.core as mx
import pytest

from mlx_zimage.bench import probe
from mlx_zimage.bench.probe import Probed, is_right, wins_from


def test_from_how_many_rows_unpacking_wins() -> None:
    assert wins_from({1: 3.0, 8: 1.2, 64: 0.8, 512: 0.2}) == 64
    assert wins_from({1: 3.0, 8: 0.9, 64: 1.1, 512: 0.9}) == 512
    assert wins_from({1: 0.9, 8: 0.5}) == 1
    assert wins_from({1: 3.0, 8: 1.2}) == math.inf


def test_a_table_is_right_where_it_loses_little() -> None:
    ratios = {1: 3.0, 8: 1.2, 64: 0.9, 512: 0.2}
    assert is_right(64, ratios) and is_right(8, ratios)
    assert not is_right(1, ratios)  # at one row unpacking takes three times as long
    assert is_right(512, ratios)
    assert not is_right(math.inf, ratios)


def test_one_row_for_each_packing_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matrices are enough here: their times say nothing."""
    monkeypatch.setattr(probe, "CPU_SIDE", 64)
    monkeypatch.setattr(probe, "CPU_ROWS", (1, 2))
    monkeypatch.setattr(probe, "SECONDS", 0)
    rows = list(probe.probe())
    assert [(row.mode, row.bits, row.group_size) for row in rows[::2]] == list(probe.PACKINGS)
    assert [row.dtype for row in rows[:2]] == ["float32", "bfloat16"]
    assert all(isinstance(row, Probed) and row.measured_rows in (1, 2, None) for row in rows)
    assert rows[4].table_rows == 2  # 4 bits in float32 on a CPU


def test_the_two_ways_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[mx.array] = []

    def ratio(a: probe.Product, b: probe.Product, x: mx.array) -> float:
        results.extend([a(x), b(x)])
        return 1.0

    monkeypatch.setattr(probe, "_ratio", ratio)
    monkeypatch.setattr(probe, "CPU_SIDE", 64)
    monkeypatch.setattr(probe, "CPU_ROWS", (3,))
    probe.probe_packing("affine", 4, 32, mx.float32)
    unpacked, by_kernel = results
    assert unpacked.shape == (3, 64)
    assert mx.allclose(unpacked, by_kernel, atol=1e-4)
