"""8-bit numbers with their scales: ComfyUI's floats (plain, or scaled in two forms) and quanto's
integers. Each byte is looked up in a table of the 256 numbers that it can stand for."""

import json
from collections.abc import Mapping
from dataclasses import replace

import mlx.core as mx
import numpy as np

from ...errors import CheckpointError
from ..official import plain
from ..safetensors import FLOATS, Entry
from ..tensor import Tensor, Tensors

FORMATS = {"F8_E4M3": (4, 7, True), "F8_E5M2": (5, 15, False)}  # exponent bits, bias, finite only
INTEGERS = "I8"
DATA = "._data"  # quanto's matrices: W._data, W._scale
SCALES = (".weight_scale", ".scale_weight", ".weight._scale")
MARKS = ("scaled_fp8",)
MARK = ".comfy_quant"
ASIDE = (*SCALES, ".scale_input", ".input_scale", ".output_scale", MARK)
"""Tensors that lie beside the weights and describe them."""


def read_scaled(entries: Mapping[str, Entry]) -> Tensors:
    """Return a safetensors file's tensors, 8-bit ones multiplied by their scales."""
    tensors: Tensors = {}
    for key, entry in entries.items():
        if key.endswith(MARK):
            _check_mark(entry)
        if key.endswith(ASIDE) or key.rpartition(".")[2] in MARKS:
            continue
        tensor, name = plain(entry), key.removesuffix(DATA)
        if entry.dtype in FORMATS or (entry.dtype == INTEGERS and name != key):
            tensor = _widened(tensor, entry, _scale(name, entry, entries))
        tensors[name] = tensor
    return tensors


def _table(dtype: str) -> np.ndarray:
    """Return the 256 numbers that a byte can stand for."""
    if dtype == INTEGERS:
        return np.arange(256).astype(np.uint8).view(np.int8).astype(np.float32)
    exponent_bits, bias, finite = FORMATS[dtype]
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


def _widened(tensor: Tensor, entry: Entry, scale: np.ndarray) -> Tensor:
    """Return the 8-bit tensor as numbers; `scale` holds one for all rows or one for each."""
    table = _table(entry.dtype)

    def rows(start: int, stop: int) -> mx.array:
        shape = (stop - start, *entry.shape[1:]) if entry.shape else ()
        scales = scale[start:stop] if len(scale) > 1 else scale
        numbers = table[entry.raw(start, stop)].reshape(len(scales), -1) * scales[:, None]
        return mx.array(numbers).reshape(shape)

    return replace(tensor, rows=rows, readable=True, entries=())


def _scale(name: str, entry: Entry, entries: Mapping[str, Entry]) -> np.ndarray:
    """Return the scales: one for all rows (1 for a plain cast), or one for each."""
    path = name.removesuffix(".weight")
    for suffix in SCALES:
        scale = entries.get(path + suffix)
        if scale is None:
            continue
        rows = entry.shape[0] if entry.shape else 1
        if scale.dtype not in FLOATS or scale.count not in (1, rows):
            raise CheckpointError(
                f"{scale.where} must be one float or {rows}, not {scale.shape} of {scale.dtype}"
            )
        numbers = scale.rows(0, scale.shape[0] if scale.shape else 1)
        return np.array(numbers.astype(mx.float32)).reshape(-1)
    if entry.dtype == INTEGERS:
        raise CheckpointError(f"{entry.where} must come with '{path}{SCALES[-1]}', its scale")
    return np.ones(1, np.float32)


def _check_mark(mark: Entry) -> None:
    if mark.count > 4096:
        raise CheckpointError(f"{mark.where} must be a short text, not {mark.count} bytes")
    try:
        mark_fields = json.loads(mark.raw(0, mark.shape[0] if mark.shape else 1).tobytes())
        kind = mark_fields.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{mark.where} must be JSON: {error}") from error
    if kind not in ("float8_e4m3fn", "float8_e5m2"):
        raise CheckpointError(f"{mark.where} has the format {kind!r}, which cannot be read yet")
