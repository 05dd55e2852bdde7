"""Safetensors files of any type, written with NumPy alone, and the values that they really hold.

bfloat16 and float8 are encoded here, so that a reader is tested against numbers that share no code
with it.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def _e4m3_values() -> np.ndarray:
    """Return the number of each byte below 127: four bits of exponent, three of mantissa."""
    codes = np.arange(127)
    exponents, mantissas = codes >> 3, codes & 7
    normal = (8.0 + mantissas) * 2.0 ** (exponents - 10)
    return np.where(exponents == 0, mantissas * 2.0**-9, normal)


E4M3 = _e4m3_values()


@dataclass(frozen=True)
class Stored:
    kind: str  # as the header names it
    shape: tuple[int, ...]
    raw: bytes
    values: np.ndarray  # float64: what a reader must get


def store(values: object, kind: str) -> Stored:
    """Round numbers to a stored type."""
    array = np.asarray(values, np.float64)
    if kind == "BF16":
        words = array.astype("<f4").view("<u4")
        finite = (words + (((words >> 16) & 1) + 0x7FFF)) >> 16
        codes = np.where(np.isfinite(array), finite, words >> 16).astype("<u2")
        read = (codes.astype("<u4") << 16).view("<f4").astype(np.float64)
        return Stored(kind, array.shape, codes.tobytes(), read.reshape(array.shape))
    if kind == "F8_E4M3":
        middles = (E4M3[1:] + E4M3[:-1]) / 2
        codes = np.searchsorted(middles, np.abs(array))
        read = np.where(array < 0, -E4M3[codes], E4M3[codes])
        signed = (codes | np.where(array < 0, 128, 0)).astype(np.uint8)
        return Stored(kind, array.shape, signed.tobytes(), read)
    types = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "BOOL": "?"}
    with np.errstate(over="ignore"):
        cast = array.astype(types[kind])
    return Stored(kind, array.shape, cast.tobytes(), cast.astype(np.float64))


def write(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str] = {}) -> Path:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for key, tensor in tensors.items():
        stop = start + len(tensor.raw)
        header[key] = {
            "dtype": tensor.kind,
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(tensor.raw for tensor in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path
