"""Files of ComfyUI and Wan2GP: layers with marks, 8-bit floats with or without scales, and quanto's
integers. Each byte of these is looked up in a table of the 256 numbers that it can stand for."""

from collections.abc import Mapping
from dataclasses import replace

import mlx.core as mx
import numpy as np

from ...errors import CheckpointError
from ..official import plain
from ..safetensors import FLOATS, Entry
from ..tensor import Tensor, Tensors
from .comfy import KINDS, read_marked
from .eight_bits import FORMATS, INTEGERS, table
from .marks import MARK, Mark, read_marks

DATA = "._data"  # quanto's matrices: W._data, W._scale
SCALES = (".weight_scale", ".scale_weight", ".weight._scale")
FLOAT_KINDS = ("float8_e4m3fn", "float8_e5m2")
FLAGS = ("scaled_fp8",)
ASIDE = (
    *SCALES,
    *(".scale_input", ".input_scale", ".output_scale", MARK),
    *(".weight_scale_2", ".pre_quant_scale", ".weight_zeros"),
    *(".weight_s_rel", ".weight_s_channel", ".weight_codebook"),
)
"""Tensors that lie beside the weights and describe them."""


def read_scaled(entries: Mapping[str, Entry]) -> Tensors:
    """Return a safetensors file's tensors, quantized ones by their marks and scales."""
    marks = read_marks(entries)
    for mark in marks.values():
        _check_kind(mark)
    tensors: Tensors = {}
    for key, entry in entries.items():
        if key.endswith(ASIDE) or key.rpartition(".")[2] in FLAGS:
            continue
        path, name = key.removesuffix(".weight"), key.removesuffix(DATA)
        if path != key and path in marks and marks[path].kind in KINDS:
            tensor = read_marked(path, marks[path], entries)
        elif entry.dtype in FORMATS or (entry.dtype == INTEGERS and name != key):
            tensor = _widened(plain(entry), entry, _scale(name, entry, entries))
        else:
            tensor = plain(entry)
        tensors[name] = tensor
    return tensors


def _check_kind(mark: Mark) -> None:
    known = (*FLOAT_KINDS, *KINDS)
    if mark.kind not in known:
        raise CheckpointError(
            f"{mark.where} has the format {str(mark.kind)[:40]!r}, which cannot be read; "
            f"known are {', '.join(known)}"
        )


def _widened(tensor: Tensor, entry: Entry, scale: np.ndarray) -> Tensor:
    """Return the 8-bit tensor as numbers; `scale` holds one for all rows or one for each."""
    numbers = table(entry.dtype)

    def rows(start: int, stop: int) -> mx.array:
        shape = (stop - start, *entry.shape[1:]) if entry.shape else ()
        scales = scale[start:stop] if len(scale) > 1 else scale
        scaled = numbers[entry.raw(start, stop)].reshape(len(scales), -1) * scales[:, None]
        return mx.array(scaled).reshape(shape)

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
