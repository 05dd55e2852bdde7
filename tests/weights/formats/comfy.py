"""Writes transformers as ComfyUI's programs do: nvfp4, mxfp8, int8, ConvRot's int8 and int4, W4A8.

One number at a time where that is quick enough, and by the published formulas.
"""

import json
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from .raw import E2M1, E4M3, Raw, bf16, e2m1, f32, nearest, rounded, text

H4 = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], np.float64) / 2
Layer = tuple[Raw, dict[str, Any], np.ndarray]  # tensors by suffix, mark, numbers in float64
FP8 = np.concatenate([E4M3, [np.nan], -E4M3, [np.nan]])


def regular(size: int) -> np.ndarray:
    matrix = H4
    while len(matrix) < size:
        matrix = np.kron(matrix, H4)
    return matrix


def turned(matrix: np.ndarray, size: int) -> np.ndarray:
    """Each block of a row times the regular Hadamard matrix."""
    blocks = matrix.astype(np.float64).reshape(len(matrix), -1, size)
    return (blocks @ regular(size)).reshape(matrix.shape)


def fitting(width: int) -> int:
    """The largest power of 4 up to 256 that divides a width."""
    return next(size for size in (256, 64, 16, 4) if width % size == 0)


def tiled(codes: np.ndarray) -> np.ndarray:
    """Scales in the tiles that cuBLAS takes: 128 rows in four runs of 32, and 4 columns."""
    rows, columns = codes.shape
    high, wide = -(-rows // 128) * 128, -(-columns // 4) * 4
    flat = np.zeros(high * wide, np.uint8)
    r, c = np.ogrid[:rows, :columns]
    tile = r // 128 * (wide // 4) + c // 4
    flat[tile * 512 + r % 32 * 16 + r % 128 // 32 * 4 + c % 4] = codes
    return flat.reshape(high, wide)


def nvfp4(matrix: np.ndarray, smooths: bool = False) -> Layer:
    rows, width = matrix.shape
    generator = np.random.default_rng(width)
    smooth = rounded(np.exp(0.2 * generator.standard_normal(width))) if smooths else np.ones(width)
    one = np.float32(np.abs(matrix).max() / (448 * 6) * 1.3)
    groups = (matrix / smooth / one).reshape(rows, -1, 16)
    codes = np.maximum(nearest(np.abs(groups).max(-1) / 6, E4M3), 1)
    levels = e2m1(groups / E4M3[codes][..., None])
    numbers = (E2M1[levels] * E4M3[codes][..., None]).reshape(rows, width).astype(np.float64) * one
    levels = levels.reshape(rows, width)
    tensors: Raw = {
        "weight": ("U8", (rows, width // 2), (levels[:, ::2] << 4 | levels[:, 1::2]).tobytes()),
        "weight_scale": ("F8_E4M3", tiled(codes).shape, tiled(codes).tobytes()),
        "weight_scale_2": f32(np.array(one)),
        "input_scale": f32(np.array(3.0)),
    }
    if smooths:
        tensors["pre_quant_scale"] = bf16(smooth)
    return tensors, {"format": "nvfp4"}, numbers * smooth


def mxfp8(matrix: np.ndarray) -> Layer:
    rows, width = matrix.shape
    groups = matrix.reshape(rows, -1, 32)
    exponent = np.ceil(np.log2(np.abs(groups).max(-1) / 448)).astype(int)
    scaled = groups / 2.0 ** exponent[..., None]
    codes = nearest(np.abs(scaled), E4M3) | np.where(scaled < 0, 128, 0).astype(np.uint8)
    scales = tiled((exponent + 127).astype(np.uint8))
    numbers = FP8[codes] * 2.0 ** exponent[..., None]
    tensors: Raw = {
        "weight": ("F8_E4M3", (rows, width), codes.tobytes()),
        "weight_scale": ("F8_E8M0", scales.shape, scales.tobytes()),
    }
    return tensors, {"format": "mxfp8"}, numbers.reshape(rows, width)


def int8(matrix: np.ndarray, scaling: str = "row", convrot: bool = True) -> Layer:
    rows, width = matrix.shape
    size = fitting(width)
    mark: dict[str, Any] = {"format": "int8_tensorwise"}
    if convrot:
        matrix = turned(matrix, size)
        mark |= {"convrot": True, "convrot_groupsize": size}
    axis = 1 if scaling == "row" else None
    scale = (np.abs(matrix).max(axis, keepdims=True) / 127).astype(np.float32)
    scale = scale if scaling == "row" else scale.reshape(())
    levels = np.clip(np.round(matrix / scale), -128, 127).astype(np.int8)
    levels[0, :3] = -128, 127, 0
    numbers = levels * scale.astype(np.float64)
    tensors: Raw = {"weight": ("I8", (rows, width), levels.tobytes()), "weight_scale": f32(scale)}
    return tensors, mark, turned(numbers, size) if convrot else numbers


def w4a4(matrix: np.ndarray) -> Layer:
    rows, width = matrix.shape
    size = fitting(width)
    matrix = turned(matrix, size)
    scale = (np.abs(matrix).max(1) / 7).astype(np.float32)
    levels = np.clip(np.round(matrix / scale[:, None]), -8, 7).astype(np.int8)
    levels[0, 0] = -8
    codes = levels.view(np.uint8) & 15
    tensors: Raw = {
        "weight": ("I8", (rows, width // 2), (codes[:, ::2] | codes[:, 1::2] << 4).tobytes()),
        "weight_scale": f32(scale),
    }
    mark = {"format": "convrot_w4a4", "convrot_groupsize": size, "linear_dtype": "int8"}
    return tensors, mark, turned(levels * scale[:, None].astype(np.float64), size)


BOOK = np.tanh(np.linspace(-2, 2, 16)).astype(np.float32)


def w4a8(matrix: np.ndarray, bits: int = 4) -> Layer:
    rows, width = matrix.shape
    size = fitting(width)
    groups = turned(matrix, size).reshape(rows, -1, 16)
    table = BOOK if bits == 4 else np.arange(-32, 32, dtype=np.float32)
    channel = (np.abs(groups).max((1, 2)) / 127).astype(np.float32)
    scale_codes = nearest(np.abs(groups).max(-1) / channel[:, None] / table.max(), E4M3)
    relative = E4M3[np.maximum(scale_codes, 1)][..., None]
    codes = nearest(groups / channel[:, None, None] / relative, table).reshape(rows, width)
    levels = np.clip(np.round(table[codes].reshape(groups.shape) * relative), -127, 127)
    raw = (codes[:, ::2] & 15) | (codes[:, 1::2] & 15) << 4
    if bits == 6:
        above = [(codes[:, j::4] >> 4) << 2 * j for j in range(4)]
        raw = np.concatenate([raw, above[0] | above[1] | above[2] | above[3]], 1)
    tensors: Raw = {
        "weight": ("I8", raw.shape, raw.astype(np.uint8).tobytes()),
        "weight_s_rel": ("U8", scale_codes.shape, np.maximum(scale_codes, 1).tobytes()),
        "weight_s_channel": f32(channel),
    }
    if bits == 4:
        tensors["weight_codebook"] = f32(BOOK)
    mark = {"format": "asym_w4a8_int8", "group_size": 16, "convrot_groupsize": size}
    numbers = (levels.reshape(rows, width) * channel[:, None].astype(np.float64)).astype(np.float64)
    return tensors, mark, turned(numbers, size)


def awq(matrix: np.ndarray) -> Layer:
    rows, width = matrix.shape
    groups = matrix.reshape(rows, -1, 64)
    scale = rounded((groups.max(-1) - groups.min(-1)) / 15)
    zero = rounded(groups.min(-1) + 8 * scale)
    codes = np.clip(np.round((groups - zero[..., None]) / scale[..., None]) + 8, 0, 15)
    numbers = (codes - 8) * scale.astype(np.float64)[..., None] + zero[..., None]
    codes = codes.astype(np.uint8).reshape(rows, width)
    tensors: Raw = {
        "weight": ("I8", (rows, width // 2), (codes[:, ::2] | codes[:, 1::2] << 4).tobytes()),
        "weight_scale": bf16(scale.T.copy()),
        "weight_zeros": bf16(zero.T.copy()),
    }
    return tensors, {"format": "awq_w4a16", "group_size": 64}, numbers.reshape(rows, width)


def transformer(
    arrays: dict[str, np.ndarray], kinds: Sequence[tuple[Callable[[np.ndarray], Layer], str]]
) -> tuple[Raw, dict[str, str], dict[str, np.ndarray]]:
    """Original names in, with each matrix of the blocks in the next of these kinds.

    Each kind says where its marks lie: in "tensors", or in the "metadata". Returns the tensors, the
    metadata, and the numbers that they stand for.
    """
    tensors: Raw = {}
    marks: dict[str, Any] = {}
    dense: dict[str, np.ndarray] = {}
    turns = cycle(kinds)
    for key, array in sorted(arrays.items()):
        is_block = key.startswith(("layers.", "noise_refiner.", "context_refiner."))
        if array.ndim != 2 or not is_block or not key.endswith(".weight"):
            tensors[key], dense[key] = f32(array), array
            continue
        path, (write, where) = key.removesuffix(".weight"), next(turns)
        parts, mark, numbers = write(array)
        tensors |= {f"{path}.{name}": part for name, part in parts.items()}
        dense[key] = numbers.astype(np.float32)
        if where == "tensors":
            tensors[f"{path}.comfy_quant"] = text(json.dumps(mark))
        else:
            marks[path] = mark
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": marks})}
    return tensors, metadata if marks else {}, dense
