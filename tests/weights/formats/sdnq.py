"""Writes a transformer's folder as SDNQ does: levels, scales, and singular vectors beside them."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .comfy import regular
from .raw import Raw, f32, write_raw


@dataclass(frozen=True)
class Form:
    kind: str  # the type of the levels
    group: int = 0  # 0: one scale for a row; -1: one for all
    rank: int = 0
    hadamard: int = 0
    turned: bool = False  # stored as SDNQ's products in 8 bits take it
    more: dict[str, Any] = field(default_factory=dict)  # settings

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "quant_method": "sdnq",
            "weights_dtype": self.kind,
            "group_size": self.group,
            "use_svd": bool(self.rank),
            "svd_rank": self.rank or 32,
            "use_hadamard": bool(self.hadamard),
            "hadamard_group_size": self.hadamard or 256,
            "use_quantized_matmul": self.turned,
            "modules_to_not_convert": ["t_embedder", "cap_embedder", "all_x_embedder"],
            **self.more,
        }


def _block(width: int, most: int) -> int:
    """The largest power of two up to `most` that divides a width."""
    while width % most:
        most //= 2
    return most


def _matrix(size: int) -> np.ndarray:
    """Regular for powers of four, Sylvester's for the other powers of two."""
    if size in (4, 16, 64, 256):
        return regular(size)
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / size**0.5


def _rotated(matrix: np.ndarray, most: int) -> np.ndarray:
    size = _block(matrix.shape[1], most)
    blocks = matrix.astype(np.float64).reshape(len(matrix), -1, size)
    return (blocks @ _matrix(size)).reshape(matrix.shape)


def layer(matrix: np.ndarray, form: Form) -> tuple[Raw, np.ndarray]:
    """The tensors of one matrix, and the numbers that they stand for."""
    rows, width = matrix.shape
    generator = np.random.default_rng(rows + width)
    rest = _rotated(matrix, form.hadamard) if form.hadamard else matrix.astype(np.float64)
    side = np.zeros(matrix.shape)
    tensors: Raw = {}
    if form.rank:
        up = (generator.standard_normal((rows, form.rank)) * 0.05).astype(np.float32)
        down = (generator.standard_normal((form.rank, width)) * 0.05).astype(np.float32)
        side = up.astype(np.float64) @ down
        if form.turned:
            up, down = up.T.copy(), down.T.copy()
        tensors = {"svd_up": f32(up), "svd_down": f32(down)}
    bits, is_signed = int(form.kind[-1]), form.kind.startswith("int")
    is_grouped = form.group > 0
    groups = (rest - side).reshape(rows, -1, form.group if is_grouped else width)
    axis = None if form.group == -1 else -1
    if is_signed:
        scale = np.abs(groups).max(axis, keepdims=True) / (2 ** (bits - 1) - 1)
        zero = np.zeros_like(scale)
    else:
        zero = groups.min(axis, keepdims=True)
        scale = (groups.max(axis, keepdims=True) - zero) / (2**bits - 1)
    scale, zero = scale.astype(np.float32), zero.astype(np.float32)
    low = -(2 ** (bits - 1)) if is_signed else 0
    levels = np.clip(np.round((groups - zero) / scale), low, low + 2**bits - 1)
    numbers = (levels * scale.astype(np.float64) + zero).reshape(rows, width) + side
    shape = groups.shape if is_grouped else (rows, width)
    stored = scale if is_grouped else scale.reshape(-1, 1)
    tensors["weight"] = _stored(
        levels.astype(np.int64).reshape(shape), form.kind, bits, form.turned
    )
    tensors["scale"] = f32(stored.T.copy() if form.turned else stored)
    if not is_signed:
        zeros = zero if is_grouped else zero.reshape(-1, 1)
        tensors["zero_point"] = f32(zeros.T.copy() if form.turned else zeros)
    return tensors, _rotated(numbers, form.hadamard) if form.hadamard else numbers


def _stored(
    levels: np.ndarray, kind: str, bits: int, turned: bool
) -> tuple[str, tuple[int, ...], bytes]:
    if bits == 8:
        whole = levels.T if turned else levels
        code = np.int8 if kind == "int8" else np.uint8
        return ("I8" if kind == "int8" else "U8"), whole.shape, whole.astype(code).tobytes()
    per = 8 // bits
    offset = 2 ** (bits - 1) if kind.startswith("int") else 0
    codes = (levels + offset).astype(np.uint8).reshape(-1, per)
    packed = np.zeros(len(codes), np.uint8)
    for i in range(per):
        packed |= codes[:, i] << np.uint8(bits * i)
    return "U8", packed.shape, packed.tobytes()


def folder(
    source: Path, out: Path, arrays: dict[str, np.ndarray], form: Form, *, beside: bool = False
) -> dict[str, np.ndarray]:
    """Write a checkpoint whose transformer is quantized, and return the transformer's numbers.

    `beside`: the settings lie in a file of their own, not in config.json.
    """
    shutil.copytree(source, out)
    for file in (out / "transformer").glob("*.safetensors*"):
        file.unlink()
    tensors: Raw = {}
    dense: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        path = key.removesuffix(".weight")
        if array.ndim != 2 or path == key or not key.startswith(("layers", "noise", "context")):
            tensors[key], dense[key] = f32(array), array
            continue
        parts, numbers = layer(array, form)
        tensors |= {f"{path}.{name}": part for name, part in parts.items()}
        dense[key] = numbers.astype(np.float32)
    write_raw(out / "transformer/diffusion_pytorch_model.safetensors", tensors)
    config = json.loads((out / "transformer/config.json").read_text())
    if not beside:
        config["quantization_config"] = form.settings
    (out / "transformer/config.json").write_text(json.dumps(config))
    (out / "transformer/quantization_config.json").write_text(json.dumps(form.settings))
    return dense
