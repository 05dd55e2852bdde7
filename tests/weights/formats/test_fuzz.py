"""Changed files of every quantized form: an error of ours that names the file, or numbers."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import CheckpointError
from mlx_zimage.checkpoint.files import read_files
from mlx_zimage.weights.formats import read_component
from mlx_zimage.weights.tensor import Tensors

from . import comfy, sdnq, svdquant
from .raw import Raw, f32, text, write_raw

PATH = "layers.0.feed_forward.w1"
SIZES = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U32": 4}
MATRIX = np.random.default_rng(0).standard_normal((256, 256))
WRITERS: dict[str, Callable[[], tuple[Raw, dict[str, Any]]]] = {
    "nunchaku int4": lambda: (_nunchaku("int4"), {}),
    "nunchaku fp4": lambda: (_nunchaku("fp4"), {}),
    "nvfp4": lambda: (_marked(comfy.nvfp4(MATRIX, smooths=True)), {}),
    "mxfp8": lambda: (_marked(comfy.mxfp8(MATRIX)), {}),
    "int8": lambda: (_marked(comfy.int8(MATRIX)), {}),
    "w4a4": lambda: (_marked(comfy.w4a4(MATRIX)), {}),
    "w4a8": lambda: (_marked(comfy.w4a8(MATRIX)), {}),
    "w6a8": lambda: (_marked(comfy.w4a8(MATRIX, 6)), {}),
    "awq": lambda: (_marked(comfy.awq(MATRIX)), {}),
    "sdnq int8": lambda: _sdnq(sdnq.Form("int8", rank=16, hadamard=256)),
    "sdnq uint4": lambda: _sdnq(sdnq.Form("uint4", 64, rank=16)),
}


def _nunchaku(kind: str) -> Raw:
    tensors, _ = svdquant.layer(MATRIX, svdquant.Form(kind), np.random.default_rng(0))
    return {f"layers.0.attention.to_out.0.{name}": value for name, value in tensors.items()}


def _marked(layer: comfy.Layer) -> Raw:
    tensors = {f"{PATH}.{name}": value for name, value in layer[0].items()}
    return {**tensors, f"{PATH}.comfy_quant": text(json.dumps(layer[1]))}


def _sdnq(form: sdnq.Form) -> tuple[Raw, dict[str, Any]]:
    tensors, _ = sdnq.layer(MATRIX, form)
    return {f"{PATH}.{name}": value for name, value in tensors.items()}, form.settings


def _changed(tensors: Raw, generator: random.Random) -> Raw:
    """One tensor of another type, shape or name, with other bytes, or none of that name."""
    tensors = dict(tensors)
    key = generator.choice(sorted(tensors))
    kind, shape, raw = tensors.pop(key)
    way = generator.randrange(5)
    if way == 0:
        kind = generator.choice(sorted(SIZES))
        raw = bytes(SIZES[kind] * int(np.prod(shape)))
    elif way == 1:
        sides = [generator.choice((0, 1, side, side // 2, side + 1, 2 * side)) for side in shape]
        shape = tuple(generator.choice((sides, sides[::-1], sides[:-1], [*sides, 1])))
        raw = bytes(SIZES[kind] * int(np.prod(shape)))
    elif way == 2:
        key = generator.choice((f"{key}_2", key.replace("weight", "scale"), f"x{key}"))
    elif way == 3 and raw:
        data = bytearray(raw)
        for _ in range(8):
            data[generator.randrange(len(data))] = generator.randrange(256)
        raw = bytes(data)
    else:
        return tensors
    return {**tensors, key: (kind, shape, raw)}


def _read(file: Path, settings: dict[str, Any]) -> None:
    tensors: Tensors
    if settings:
        tensors = read_component(file.parent, {"quantization_config": settings})
    else:
        tensors = read_files([file])["transformer"]
    for tensor in tensors.values():
        if tensor.readable and all(tensor.shape):
            tensor.rows(0, 1)
            mx.eval(tensor.read())


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WRITERS)
def test_changed_files(tmp_path: Path, name: str, count: int) -> None:
    generator, refused = random.Random(0), 0
    tensors, settings = WRITERS[name]()
    tensors["x_embedder.weight"] = f32(np.ones((2, 2)))
    for number in range(count):
        file = write_raw(tmp_path / "a.safetensors", _changed(tensors, generator))
        if number % 4 == 0:
            data = bytearray(file.read_bytes())
            data = data[: generator.randrange(len(data))] if number % 8 else data
            data[generator.randrange(min(len(data), 2000))] ^= 1 << generator.randrange(8)
            file.write_bytes(data)
        try:
            _read(file, settings)
        except CheckpointError as error:
            refused += "\n" not in str(error)
    print(f"{name}: {refused} of {count} changed files were refused")
    assert refused > count // 4
