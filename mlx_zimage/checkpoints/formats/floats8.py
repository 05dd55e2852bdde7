"""8-bit floats: plain casts, and ComfyUI's scaled ones in both forms."""

import json
from collections.abc import Mapping
from dataclasses import replace

import mlx.core as mx
import numpy as np

from ...errors import CheckpointError
from ..shards import Entry, plain, read_bytes
from ..tensors import Tensor

FORMATS = {"F8_E4M3": (4, 7, True), "F8_E5M2": (5, 15, False)}  # exponent bits, bias, finite only
SCALES = (".weight_scale", ".scale_weight")
MARKS = ("scaled_fp8",)
ASIDE = (".scale_input", ".input_scale", ".comfy_quant", ".scale_weight", ".weight_scale")
"""What lies beside the weights, and is none of them."""


def _table(name: str) -> np.ndarray:
    """The 256 numbers that a byte can be."""
    exponent_bits, bias, finite = FORMATS[name]
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponent = codes >> mantissa_bits & (1 << exponent_bits) - 1
    fraction = (codes & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    normal = np.where(exponent > 0, 1 + fraction, fraction)
    size = normal * 2.0 ** (np.maximum(exponent, 1) - bias)
    if finite:
        size[codes & 127 == 127] = np.nan
    else:
        size[exponent == 31] = np.where(fraction[exponent == 31] == 0, np.inf, np.nan)
    table: np.ndarray = np.where(codes & 128, -size, size).astype(np.float32)
    return table


def scaled(entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, 8-bit floats by their scales."""
    found = {}
    for key, entry in entries.items():
        if key.endswith(ASIDE) or key.rpartition(".")[2] in MARKS:
            continue
        tensor = plain(entry)
        if entry.dtype in FORMATS:
            tensor = _widened(tensor, entry, _scale(key, entries))
        found[key] = tensor
    return found


def _widened(tensor: Tensor, entry: Entry, scale: float) -> Tensor:
    table = _table(entry.dtype) * np.float32(scale)
    width = entry.count // entry.shape[0] if entry.shape else 1

    def rows(start: int, stop: int) -> mx.array:
        raw = read_bytes(
            entry.file, entry.start + start * width, (stop - start) * width, entry.stamp
        )
        shape = (stop - start, *entry.shape[1:]) if entry.shape else ()
        return mx.array(table[raw]).reshape(shape)

    return replace(tensor, rows=rows, readable=True)


def _scale(key: str, entries: Mapping[str, Entry]) -> float:
    """One for the whole tensor; 1 for a plain cast."""
    path = key.removesuffix(".weight")
    mark = entries.get(f"{path}.comfy_quant")
    if mark is not None:
        _check_mark(mark)
    for name in SCALES:
        entry = entries.get(path + name)
        if entry is not None:
            if entry.count != 1 or entry.dtype not in ("F32", "F16", "BF16"):
                raise CheckpointError(f"{entry.where} must be one float, not {entry.shape}")
            return float(np.array(entry.rows(0, 1).astype(mx.float32)).reshape(()))
    return 1.0


def _check_mark(mark: Entry) -> None:
    raw = read_bytes(mark.file, mark.start, min(mark.stop - mark.start, 4096), mark.stamp)
    try:
        said = json.loads(raw.tobytes())
        kind = said.get("format")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{mark.where} must be JSON: {error}") from error
    if kind not in ("float8_e4m3fn", "float8_e5m2"):
        raise CheckpointError(f"{mark.where} is of the format {kind!r}, which cannot be read yet")
