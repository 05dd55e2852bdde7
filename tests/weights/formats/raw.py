"""Safetensors files of any types, and the small numbers of quantized files, in NumPy alone."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

Raw = dict[str, tuple[str, tuple[int, ...], bytes]]  # type, shape and bytes by name


def write_raw(file: Path, tensors: Raw, metadata: Mapping[str, str] | None = None) -> Path:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for key, (dtype, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def f32(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", array.shape, array.astype("<f4").tobytes()


def bf16(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Numbers that bfloat16 holds exactly: see `rounded`."""
    bits = array.astype("<f4").view("<u4")
    assert not (bits & 0xFFFF).any()
    return "BF16", array.shape, (bits >> 16).astype("<u2").tobytes()


def rounded(array: np.ndarray) -> np.ndarray:
    """The nearest numbers that bfloat16 holds, as float32."""
    bits = array.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def text(value: str) -> tuple[str, tuple[int, ...], bytes]:
    raw = value.encode()
    return "U8", (len(raw),), raw


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])  # by code
_CODES = np.arange(127)
E4M3 = np.where(
    _CODES >> 3, (1 + (_CODES & 7) / 8) * 2.0 ** ((_CODES >> 3) - 7), (_CODES & 7) / 8 * 2.0**-6
).astype(np.float32)
"""The numbers that float8 e4m3 holds, from 0 on, by code."""


def nearest(array: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The codes of the nearest numbers of a sorted table."""
    middles = (table[1:] + table[:-1]) / 2
    return np.searchsorted(middles, array).astype(np.uint8)


def e2m1(array: np.ndarray) -> np.ndarray:
    """The codes of the nearest numbers of 4 bits."""
    return nearest(np.abs(array), E2M1[:8]) | np.where(array < 0, 8, 0).astype(np.uint8)
