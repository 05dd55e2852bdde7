"""Checkpoints in other programs' forms give the official keys and numbers back."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import CheckpointError, ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.checkpoint.files import read_files
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.tensor import Tensor
from tests.measures import cosine

from . import foreign

import gguf  # isort: skip

DRAWN: dict[str, Any] = {"width": 32, "height": 32, "steps": 2, "seed": 1}


@pytest.fixture
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("small")


def _read(file: Path) -> dict[str, dict[str, Tensor]]:
    return read_files([file])


def _same(found: dict[str, Tensor], folder: Path, part: str) -> None:
    expected = foreign.official(folder, part)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert np.array_equal(np.array(found[key].read().astype(mx.float32)), array), key


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_transformer_in_the_original_names(source: Path, tmp_path: Path, prefix: str) -> None:
    file = foreign.write(tmp_path / "a.safetensors", foreign.transformer(source), prefix)
    _same(_read(file)["transformer"], source, "transformer")


def test_pad_tokens_of_one_dimension(source: Path, tmp_path: Path) -> None:
    arrays = foreign.transformer(source)
    arrays |= {key: arrays[key][0] for key in ("x_pad_token", "cap_pad_token")}
    file = foreign.write(tmp_path / "a.safetensors", arrays)
    _same(_read(file)["transformer"], source, "transformer")


@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model."])
def test_vae_in_the_older_names(source: Path, tmp_path: Path, prefix: str) -> None:
    file = foreign.write(tmp_path / "a.safetensors", foreign.vae(source), prefix)
    _same(_read(file)["vae"], source, "vae")


@pytest.mark.parametrize("prefix", ["", "text_encoders.qwen3_4b.transformer."])
def test_text_encoder(source: Path, tmp_path: Path, prefix: str) -> None:
    arrays = foreign.text_encoder(source)
    _same(
        _read(foreign.write(tmp_path / "a.safetensors", arrays, prefix))["text_encoder"],
        source,
        "text_encoder",
    )


def _all_in_one(source: Path, file: Path) -> Path:
    arrays = {f"model.diffusion_model.{k}": a for k, a in foreign.transformer(source).items()}
    arrays |= {f"vae.{k}": a for k, a in foreign.vae(source).items()}
    prefix = "text_encoders.qwen3_4b.transformer."
    arrays |= {prefix + k: a for k, a in foreign.text_encoder(source).items()}
    return foreign.write(file, arrays)


def _split(source: Path, folder: Path) -> Path:
    for name in ("diffusion_models", "text_encoders", "vae_files"):
        (folder / name).mkdir(parents=True)
    foreign.write(folder / "diffusion_models/a.safetensors", foreign.transformer(source))
    foreign.write(folder / "text_encoders/b.safetensors", foreign.text_encoder(source))
    foreign.write(folder / "vae_files/ae.safetensors", foreign.vae(source))
    return folder


@pytest.mark.parametrize("form", ["all in one", "split", "given together", "transformer alone"])
def test_draws_what_the_folder_draws(source: Path, tmp_path: Path, form: str) -> None:
    beside: list[Path] = []
    if form == "given together":
        files = _split(source, tmp_path / "files")
        path, *beside = sorted(files.rglob("*.safetensors"))
    elif form == "split":
        path = _split(source, tmp_path / "files")
    elif form == "all in one":
        path = _all_in_one(source, tmp_path / "all.safetensors")
    else:
        path = foreign.write(tmp_path / "one.safetensors", foreign.transformer(source))
    plan = Conversion.plan(path, dtype="float32", base=source, beside=beside)
    held = {Path(t.place[0]) for part in COMPONENTS for t in plan.tensors(part).values()}
    assert form != "given together" or held == {path, *beside}
    list(convert_checkpoint(plan, tmp_path / "out"))
    a, b = (ZImage.load(folder).generate("x", **DRAWN) for folder in (source, tmp_path / "out"))
    assert mx.array_equal(a.latents, b.latents)
    assert np.array_equal(np.asarray(a.image), np.asarray(b.image))


def test_a_lonely_file_needs_a_base(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = foreign.write(tmp_path / "a.safetensors", foreign.transformer(source))
    with pytest.raises(
        CheckpointError, match=r"holds only transformer; .* mlx-zimage download turbo"
    ):
        ZImage.load(file)


@pytest.mark.parametrize("bits", [None, 3, 4, 8])
def test_mflux(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    """What it kept at 16 bit comes back as it was, the rest as its packed numbers say."""
    source = checkpoint("wide")
    folder = foreign.mflux(source, tmp_path / "mflux", bits)
    opened = Checkpoint.open(folder, source)
    for part in COMPONENTS:
        expected = foreign.official(source, part)
        assert opened[part].tensors.keys() == expected.keys()
        for key, tensor in opened[part].tensors.items():
            array = mx.array(expected[key]).astype(mx.bfloat16)
            if bits and tensor.packing is not None:
                array = mx.dequantize(*mx.quantize(array, 64, bits), 64, bits)
            assert mx.array_equal(tensor.read(), array), key
    packed = [t for part in COMPONENTS for t in opened[part].tensors.values() if t.packing]
    assert {t.packing for t in packed} == ({Packing("affine", bits, 64)} if bits else set())
    list(convert_checkpoint(Conversion.plan(folder, base=source), tmp_path / "out"))
    written = Checkpoint.open(tmp_path / "out")
    for part in COMPONENTS:
        for key, tensor in opened[part].tensors.items():
            assert written[part].tensors[key].packing == tensor.packing
            assert mx.array_equal(written[part].tensors[key].read(), tensor.read()), key
    ZImage.load(tmp_path / "out").generate("x", **DRAWN)


def test_quanto(source: Path, tmp_path: Path) -> None:
    arrays = foreign.official(source, "transformer")
    file = foreign.write(tmp_path / "a.safetensors", foreign.quanto(arrays))
    found = _read(file)["transformer"]
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        back = np.array(found[key].read())
        step = np.abs(array).max() / 127 if key.startswith("layers.") else 0
        assert np.abs(back - array).max() <= step * 0.501, key


def test_quanto_without_its_scale(source: Path, tmp_path: Path) -> None:
    arrays = foreign.quanto(foreign.official(source, "transformer"))
    scale = next(key for key in arrays if key.endswith("._scale"))
    wrong = {**arrays, scale: np.ones(3, np.float32)}
    with pytest.raises(CheckpointError, match=r"_scale' must be one float or \d+, not \(3,\)"):
        _read(foreign.write(tmp_path / "a.safetensors", wrong))
    del arrays[scale]
    with pytest.raises(CheckpointError, match="must come with"):
        _read(foreign.write(tmp_path / "b.safetensors", arrays))


def test_two_files_for_one_part(source: Path, tmp_path: Path) -> None:
    folder = _split(source, tmp_path / "files")
    foreign.write(folder / "other.safetensors", foreign.vae(source))
    with pytest.raises(CheckpointError, match="both hold a vae"):
        Checkpoint.open(folder, source)


def test_pickles_are_refused_by_their_content(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    for protocol in (2, 3, 4, 5):
        file.write_bytes(pickle.dumps({"x": 1}, protocol))
        with pytest.raises(CheckpointError, match="is a pickle"):
            _read(file)
    file.write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(CheckpointError, match="is a pickle"):
        _read(file)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 66176])
def test_headers_whose_length_looks_like_a_pickle(tmp_path: Path, length: int) -> None:
    header = {"x_embedder.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode().ljust(length)
    (tmp_path / "a").write_bytes(length.to_bytes(8, "little") + text + bytes(4))
    assert "transformer" in _read(tmp_path / "a")


Raw = dict[str, tuple[str, tuple[int, ...], bytes]]
SIGN: Raw = {"x_embedder.weight": ("F32", (1,), bytes(4))}
ODD: dict[str, tuple[Raw, str]] = {
    "scales of no width": (
        {
            "x_embedder.weight": ("U32", (4, 8), bytes(128)),
            "x_embedder.scales": ("BF16", (4, 0), b""),
        },
        "must come with|not known",
    ),
    "a group that does not fit": (
        {
            "x_embedder.weight": ("U32", (4, 9), bytes(144)),
            "x_embedder.scales": ("BF16", (4, 1), bytes(8)),
        },
        "groups of 64 do not fit|not known",
    ),
    "a mark of brackets": (
        {**SIGN, "x_embedder.comfy_quant": ("U8", (4000,), b"[" * 4000)},
        "must be JSON",
    ),
    "a mark without end": (
        {**SIGN, "x_embedder.comfy_quant": ("U8", (5000,), b"[" * 5000)},
        "must be a short text",
    ),
    "nvfp8": (
        {**SIGN, "layers.0.x.comfy_quant": ("U8", (19,), b'{"format": "nvfp8"}')},
        "has the format 'nvfp8'",
    ),
    "two names for one": (
        {**SIGN, "all_x_embedder.2-1.weight": ("F32", (1,), bytes(4))},
        "are both named 'all_x_embedder",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files(tmp_path: Path, name: str) -> None:
    tensors, match = ODD[name]
    file = _write_raw(tmp_path / "a", tensors)
    with pytest.raises(CheckpointError, match=match):
        [tensor.read() for tensor in _read(file)["transformer"].values()]


def test_odd_names_in_a_vae(source: Path, tmp_path: Path) -> None:
    """Blocks without end, or of the encoder's alone; a 3x3 where a matrix should be."""
    arrays = foreign.vae(source)
    wide = next(key for key in arrays if ".mid.attn_1.q.weight" in key)
    for more in (
        {f"decoder.up.{'9' * 5000}.x": np.ones(1, np.float32)},
        {"encoder.up.1.x": np.ones(1, np.float32)},
        {wide: np.ones((*arrays[wide].shape[:2], 3, 3), np.float32)},
    ):
        file = foreign.write(tmp_path / "a.safetensors", {**arrays, **more})
        with pytest.raises(CheckpointError, match=r"unknown to this model|must have the shape"):
            Checkpoint.open(file, source)


def test_a_scalar_that_nothing_uses(source: Path, tmp_path: Path) -> None:
    arrays = {**foreign.text_encoder(source), "lm_head.logit_scale": np.array(2, np.float32)}
    file = foreign.write(tmp_path / "a.safetensors", arrays)
    list(convert_checkpoint(Conversion.plan(file, base=source), tmp_path / "out"))
    assert [*verify_checkpoint(tmp_path / "out")]


def test_a_file_of_something_else(tmp_path: Path) -> None:
    file = foreign.write(tmp_path / "a.safetensors", {"x": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match="holds no component of Z-Image"):
        _read(file)


def _write_raw(file: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    header, data = {}, b""
    for key, (dtype, shape, raw) in tensors.items():
        header[key] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def _scaled_file(file: Path, dtype: str, form: str, scale: float) -> Path:
    """A transformer's sign, and one matrix of every byte."""
    table = np.arange(256, dtype=np.uint8).reshape(4, 64)
    tensors = {
        "x_embedder.weight": ("F32", (2, 2), np.ones(4, np.float32).tobytes()),
        "layers.0.feed_forward.w1.weight": (dtype, (4, 64), table.tobytes()),
    }
    one = np.float32(scale).tobytes()
    if form == "legacy":
        tensors["scaled_fp8"] = (dtype, (2,), bytes(2))
        tensors["layers.0.feed_forward.w1.scale_weight"] = ("F32", (), one)
        tensors["layers.0.feed_forward.w1.scale_input"] = ("F32", (), one)
    elif form == "new":
        kind = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[dtype]
        mark = json.dumps({"format": kind}).encode()
        tensors["layers.0.feed_forward.w1.weight_scale"] = ("F32", (1,), one)
        tensors["layers.0.feed_forward.w1.comfy_quant"] = ("U8", (len(mark),), mark)
    return _write_raw(file, tensors)


@pytest.mark.parametrize("form", ["plain", "legacy", "new"])
@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_8_bit_floats(dtype: str, form: str, tmp_path: Path) -> None:
    scale = 1.0 if form == "plain" else 0.0375
    found = _read(_scaled_file(tmp_path / "a.safetensors", dtype, form, scale))["transformer"]
    assert found.keys() == {"all_x_embedder.2-1.weight", "layers.0.feed_forward.w1.weight"}
    ours = np.array(found["layers.0.feed_forward.w1.weight"].read()).reshape(-1)
    exponents = {"F8_E4M3": (4, 3, 7), "F8_E5M2": (5, 2, 15)}[dtype]
    for code in range(256):
        expected = _float8(code, *exponents, finite=dtype == "F8_E4M3") * np.float32(scale)
        assert ours[code] == np.float32(expected) or (np.isnan(ours[code]) and np.isnan(expected))


def _float8(code: int, exponent_bits: int, mantissa_bits: int, bias: int, *, finite: bool) -> float:
    """By the definition, one number at a time."""
    sign = -1.0 if code >> 7 else 1.0
    exponent = (code >> mantissa_bits) % (1 << exponent_bits)
    mantissa = code % (1 << mantissa_bits)
    if finite and code % 128 == 127:
        return float("nan")
    if not finite and exponent == (1 << exponent_bits) - 1:
        return sign * float("inf") if mantissa == 0 else float("nan")
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_broken_files(tmp_path: Path, count: int) -> None:
    """Cut and mutated headers: an error of ours, or the same as before; nothing else."""
    arrays = {"x_embedder.weight": np.ones((2, 2), np.float32), "b": np.ones(3, np.float32)}
    whole = foreign.write(tmp_path / "whole.safetensors", arrays).read_bytes()
    file, generator, refused = tmp_path / "broken.safetensors", random.Random(0), 0
    for number in range(count):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: generator.randrange(len(data))]
        for _ in range(generator.randrange(1, 4) if number % 3 else 0):
            data[generator.randrange(len(data) - 28)] = generator.randrange(256)
        file.write_bytes(data)
        try:
            for tensor in _read(file)["transformer"].values():
                if tensor.readable:
                    tensor.read()
        except CheckpointError:
            refused += 1
    print(f"{refused} of {count} broken files were refused")
    assert refused > count / 3


def _gguf(file: Path, arrays: foreign.Arrays, kind: str, *more: str) -> Path:
    """Matrices quantized, as the usual programs do it, and `more`; all else as it is."""
    writer = gguf.GGUFWriter(str(file), "lumina2")
    quantized = gguf.GGMLQuantizationType[kind]
    for key, array in arrays.items():
        data = np.ascontiguousarray(array)
        is_matrix = array.ndim == 2 and array.shape[1] % 64 == 0 and "pad_token" not in key
        if is_matrix or key in more:
            writer.add_tensor(key, gguf.quants.quantize(data, quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(key, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_gguf_carries_over_matrices_alone(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """A quantized pad token is unpacked: it is no layer."""
    source = checkpoint("demo")
    file = _gguf(tmp_path / "a.gguf", foreign.transformer(source), "Q8_0", "x_pad_token")
    assert _read(file)["transformer"]["x_pad_token"].kind == "Q8_0"
    list(convert_checkpoint(Conversion.plan(file, base=source), tmp_path / "out"))
    ZImage.load(tmp_path / "out").generate("x", **DRAWN)


@pytest.mark.parametrize(("kind", "bits", "least"), [("Q8_0", 8, 0.9999), ("Q4_1", 4, 0.98)])
def test_gguf_is_carried_over(
    checkpoint: Callable[[str], Path], tmp_path: Path, kind: str, bits: int, least: float
) -> None:
    """Q8_0 and its like stay as they are, without a second rounding, on disk as in memory."""
    source = checkpoint("even")
    file = _gguf(tmp_path / "a.gguf", foreign.transformer(source), kind)
    plan = Conversion.plan(file, dtype="float16", base=source)
    list(convert_checkpoint(plan, tmp_path / "out"))
    stored = Checkpoint.open(tmp_path / "out")["transformer"].tensors
    packings = {tensor.packing for tensor in stored.values()} - {None}
    assert {(p.bits, p.group_size) for p in packings if p} == {(bits, 32)}
    for key, tensor in _read(file)["transformer"].items():
        away = np.abs(np.array(tensor.read()) - np.array(stored[key].read().astype(mx.float32)))
        largest = np.abs(np.array(tensor.read())).max()
        assert away.max() <= largest * 2**-9, key  # MLX multiplies and adds in float16
    plain, carried = (ZImage.load(f).generate("x", **DRAWN) for f in (source, tmp_path / "out"))
    assert cosine(carried.latents, np.array(plain.latents)) >= least
