"""Measures of how near two arrays are; and devices that this machine has in name only."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest


def as_float64(x: Any) -> np.ndarray:
    if isinstance(x, mx.array):
        x = x.astype(mx.float32)
    return np.asarray(x, np.float64)


def relative_error(ours: Any, theirs: Any) -> float:
    a, b = as_float64(ours), as_float64(theirs)
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def cosine(ours: Any, theirs: Any) -> float:
    a, b = as_float64(ours).ravel(), as_float64(theirs).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def differing_pixels(ours: Any, theirs: Any) -> float:
    """The share of 8-bit values that differ; by more than one is never allowed."""
    a, b = np.asarray(ours).astype(int), np.asarray(theirs).astype(int)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 1
    return float((a != b).mean())


def pretend(monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """Call the device "applegpu_g16s" (an M4 Max), "sm_90" (an H100), ...; it still is a CPU."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": architecture})
