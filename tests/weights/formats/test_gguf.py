"""GGUF, against the format's own library: every type to the last bit."""

import os
import random
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import CheckpointError
from mlx_zimage.quantization.recipe import pack
from mlx_zimage.weights.formats.gguf import CARRIED, read_gguf
from mlx_zimage.weights.formats.gguf_blocks import TYPES

import gguf  # isort: skip

KINDS = {blocks.name: number for number, blocks in TYPES.items()}


def _bytes(kind: str, rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Any bytes are valid blocks, but their 16-bit scales must be finite."""
    blocks = TYPES[KINDS[kind]]
    raw = np.random.RandomState(seed).randint(0, 256, (rows * width // blocks.numbers, blocks.size))
    raw = raw.astype(np.uint8)
    at = 0
    for _, length in blocks.fields:
        if length == 2 and kind != "BF16":
            raw[:, at + 1] &= 0xBB  # an exponent that is not all ones
        at += length
    return raw.reshape(rows, -1)


def _write(file: Path, tensors: dict[str, tuple[np.ndarray, str]]) -> Path:
    writer = gguf.GGUFWriter(str(file), "lumina2")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    raw = _bytes(kind, 6, 512)
    if kind in ("F32", "F16"):
        raw = np.random.RandomState(0).standard_normal((6, 512)).astype(f"f{int(kind[1:]) // 8}")
    file = _write(tmp_path / "a.gguf", {"w.weight": (raw, kind)})
    tensor = read_gguf(file)["w.weight"]
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]).reshape(6, 512)
    ours = np.array(tensor.read())
    assert ours.dtype == np.float32
    finite = np.isfinite(expected)
    assert (ours.view(np.uint32) == expected.astype(np.float32).view(np.uint32))[finite].all()
    some = np.array(tensor.rows(2, 5))
    assert (some.view(np.uint32) == ours[2:5].view(np.uint32)).all()


@pytest.mark.parametrize("kind", CARRIED)
def test_carried_over_without_rounding(kind: str, tmp_path: Path) -> None:
    """In MLX's groups of 32 with float16 scales: the same numbers."""
    values = np.random.RandomState(1).standard_normal((4, 128)).astype(np.float32) * 0.05
    raw = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    tensor = read_gguf(_write(tmp_path / "a.gguf", {"w.weight": (raw, kind)}))["w.weight"]
    assert tensor.packing is not None
    words, scales, biases = pack(tensor, tensor.packing, mx.float32, 0, 4)
    assert scales.dtype == mx.float16
    wide = mx.dequantize(
        words, scales.astype(mx.float32), biases.astype(mx.float32), 32, tensor.packing.bits
    )
    away = np.abs(np.array(wide) - np.array(tensor.read())).max()
    assert (
        away <= np.abs(values).max() * 2**-22
    )  # a fused multiply-add rounds once instead of twice


def test_shapes_of_one_dimension(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32)
    tensor = read_gguf(_write(tmp_path / "a.gguf", {"norm": (values, "F32")}))["norm"]
    assert tensor.shape == (12,)
    assert np.array_equal(np.array(tensor.read()), values)
    assert np.array_equal(np.array(tensor.rows(3, 7)), values[3:7])


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_broken_files_are_told_from_whole_ones(tmp_path: Path, count: int) -> None:
    """Many cut and mutated files: an error of ours or the same names, and nothing else."""
    raw = {"a.weight": (_bytes("Q4_K", 2, 256), "Q4_K"), "b": (np.ones(8, np.float32), "F32")}
    whole = _write(tmp_path / "whole.gguf", raw).read_bytes()
    file, generator = tmp_path / "broken.gguf", random.Random(0)
    refused = 0
    for number in range(count):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: generator.randrange(len(data))]
        for _ in range(generator.randrange(1, 4) if number % 3 else 0):
            data[generator.randrange(min(len(data), 400))] = generator.randrange(256)
        file.write_bytes(data)
        try:
            for tensor in read_gguf(file).values():
                tensor.read()
        except CheckpointError:
            refused += 1
    print(f"{refused} of {count} broken files were refused")
    assert refused > count / 3


@pytest.mark.parametrize("count", [2**63, 2**64 - 1, 10**9])
def test_lying_counts(tmp_path: Path, count: int) -> None:
    data = b"GGUF" + (3).to_bytes(4, "little") + count.to_bytes(8, "little") * 2
    (tmp_path / "a.gguf").write_bytes(data + bytes(64))
    with pytest.raises(CheckpointError, match=r"a\.gguf is truncated or no GGUF file"):
        read_gguf(tmp_path / "a.gguf")


def test_a_text_without_end(tmp_path: Path) -> None:
    """600 MB of it are there, in a file with a hole; none of them is read."""
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 600_000_000))
    os.truncate(file, 700_000_000)
    with pytest.raises(CheckpointError, match="a text of 600000000 bytes"):
        read_gguf(file)


def test_types_that_are_not_known(tmp_path: Path) -> None:
    data = np.zeros((1, 98), np.uint8)
    file = _write(tmp_path / "a.gguf", {"w": (data, "IQ3_XXS")})
    with pytest.raises(CheckpointError, match="tensor 'w' must be one of F32"):
        read_gguf(file)
