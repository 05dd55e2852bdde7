"""ComfyUI's quantized files: numbers, latents, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import CheckpointError, ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.files import read_files
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.weights.packing import Packing
from tests.measures import relative_error

from . import comfy, foreign
from .raw import Raw, f32, text, write_raw

DRAWN: dict[str, Any] = {"width": 32, "height": 32, "steps": 2, "seed": 1}
INT8 = Packing("affine", 8, 128, output_scale=True)
TURNED = replace(INT8, rotation="regular-256")
NVFP4 = Packing("nvfp4", 4, 16, output_scale=True)
FORMS: dict[str, tuple[Callable[[np.ndarray], comfy.Layer], str, Packing]] = {
    "nvfp4": (comfy.nvfp4, "metadata", NVFP4),
    "nvfp4, smoothed": (
        partial(comfy.nvfp4, smooths=True),
        "tensors",
        replace(NVFP4, input_scale=True),
    ),
    "mxfp8": (comfy.mxfp8, "metadata", Packing("mxfp8", 8, 32)),
    "int8 of a tensor": (partial(comfy.int8, scaling="tensor", convrot=False), "tensors", INT8),
    "int8 convrot": (comfy.int8, "tensors", TURNED),
    "w4a4 convrot": (comfy.w4a4, "metadata", replace(TURNED, bits=4)),
    "w4a8": (comfy.w4a8, "metadata", TURNED),
    "w6a8": (partial(comfy.w4a8, bits=6), "tensors", TURNED),
    "awq": (comfy.awq, "tensors", Packing("affine", 4, 64)),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers(form: str, tmp_path: Path) -> None:
    """The relative error is at most 2.5e-7, of float32, wherever a range of rows begins."""
    write, where, packing = FORMS[form]
    matrix = np.random.default_rng(0).standard_normal((320, 256)).astype(np.float32)
    arrays = {"layers.0.x.weight": matrix, "x_embedder.weight": np.ones((1, 1), np.float32)}
    tensors, metadata, dense = comfy.transformer(arrays, [(write, where)])
    file = write_raw(tmp_path / "a.safetensors", tensors, metadata)
    tensor = read_files([file])["transformer"]["layers.0.x.weight"]
    assert tensor.shape == (320, 256)
    assert tensor.packing == packing
    for start, stop in ((0, 320), (0, 1), (100, 300)):
        expected = dense["layers.0.x.weight"][start:stop]
        assert relative_error(tensor.rows(start, stop), expected) <= 3e-7


@pytest.fixture(scope="module")
def mixed(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A file with layers of all kinds, the dense checkpoint, and the one that both come from."""
    source, folder = checkpoint("tiled"), tmp_path_factory.mktemp("comfy")
    kinds = [(write, where) for write, where, _ in FORMS.values()]
    tensors, metadata, dense = comfy.transformer(foreign.transformer(source), kinds)
    file = write_raw(folder / "a.safetensors", tensors, metadata)
    plain = read_files([foreign.write(folder / "b.safetensors", dense)])["transformer"]
    numbers = {key: np.array(tensor.read()) for key, tensor in plain.items()}
    return file, foreign.replaced(source, folder / "plain", numbers), source


def test_draws_what_the_dense_weights_draw(mixed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Written as it is stored, loaded, and read block by block: within 4e-7."""
    file, plain, source = mixed
    list(convert_checkpoint(Conversion.plan(file, dtype="float32", base=source), tmp_path / "out"))
    assert [*verify_checkpoint(tmp_path / "out")]
    packed = Checkpoint.open(tmp_path / "out")["transformer"].tensors
    found = read_files([file])["transformer"]
    assert {k: t.packing for k, t in packed.items()} == {k: t.packing for k, t in found.items()}
    assert {"regular-64", "regular-256"} <= {
        t.packing.rotation for t in found.values() if t.packing
    }
    latents = ZImage.load(plain, dtype="float32").generate("x", **DRAWN).latents
    for memory in ("resident", "low"):
        model = ZImage.load(tmp_path / "out", dtype="float32", memory=memory)
        assert relative_error(model.generate("x", **DRAWN).latents, latents) <= 1e-6


@pytest.mark.slow
def test_a_text_encoder_and_its_table(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The table of embeddings becomes numbers: rows are taken from it. The layers stay packed."""
    source = checkpoint("even")
    tensors: Raw = {}
    dense: foreign.Arrays = {}
    for key, array in foreign.text_encoder(source).items():
        if array.ndim != 2:
            tensors[key], dense[key] = f32(array), array
            continue
        parts, mark, numbers = comfy.int8(array)
        path = key.removesuffix(".weight")
        tensors |= {f"{path}.{name}": part for name, part in parts.items()}
        tensors[f"{path}.comfy_quant"] = text(json.dumps(mark))
        dense[key] = numbers.astype(np.float32)
    file = write_raw(tmp_path / "a.safetensors", tensors)
    plain = foreign.write(tmp_path / "plain.safetensors", dense)
    embeds = []
    for name, beside in (("packed", file), ("dense", plain)):
        plan = Conversion.plan(source, dtype="float32", beside=[beside])
        list(convert_checkpoint(plan, tmp_path / name))
        model = ZImage.load(tmp_path / name, dtype="float32")
        embeds.append(model.generate("a red fox", **DRAWN).prompt_embeds)
    held = Checkpoint.open(tmp_path / "packed")["text_encoder"].tensors
    assert held["model.embed_tokens.weight"].packing is None
    assert sum(tensor.packing is not None for tensor in held.values()) == 3 * 7
    assert relative_error(*embeds) <= 1e-6


@pytest.mark.parity
def test_diffusers_draws_the_same_from_the_dense_weights(
    mixed: tuple[Path, Path, Path], tmp_path: Path, measure: Callable[[str, float, float], None]
) -> None:
    from tests.parity import limits, ours, published
    from tests.parity.cases import Case

    file, plain, source = mixed
    list(convert_checkpoint(Conversion.plan(file, dtype="float32", base=source), tmp_path / "out"))
    case = Case("comfy", "tiled", 64, 32)
    theirs = published.run(published.load(plain), case)
    mine = ours.run(ZImage.load(tmp_path / "out", dtype="float32"), case)
    for a, b in zip(mine.steps, theirs.steps, strict=True):
        measure("latents from ComfyUI's weights", relative_error(a, b), limits.LATENTS)


def test_levels_are_exact_in_bfloat16(tmp_path: Path) -> None:
    """A scale that is a power of two rounds no level: only the output's scale is rounded."""
    matrix = np.random.default_rng(0).standard_normal((128, 256)).astype(np.float32)
    arrays = {"layers.0.x.weight": matrix, "x_embedder.weight": np.ones((1, 1), np.float32)}
    tensors, _, _ = comfy.transformer(arrays, [(partial(comfy.int8, convrot=False), "tensors")])
    tensor = read_files([write_raw(tmp_path / "a", tensors)])["transformer"]["layers.0.x.weight"]
    assert tensor.packing is not None and tensor.packed_rows is not None
    words, *scales = tensor.packed_rows(0, 128)
    sixteen = [scale.astype(mx.bfloat16) for scale in scales]
    exact = tensor.packing.plain.unpack([words, *scales])
    assert mx.array_equal(tensor.packing.plain.unpack([words, *sixteen]).astype(mx.float32), exact)


@pytest.mark.parametrize("where", ["tensors", "metadata"])
def test_an_unknown_kind_is_named(tmp_path: Path, where: str) -> None:
    def unknown(matrix: np.ndarray) -> comfy.Layer:
        tensors, _, numbers = comfy.int8(matrix)
        return tensors, {"format": "int2_magic"}, numbers

    arrays = {"layers.0.x.weight": np.ones((32, 64), np.float32)}
    tensors, metadata, _ = comfy.transformer(arrays, [(unknown, where)])
    file = write_raw(tmp_path / "a", tensors, metadata)
    with pytest.raises(CheckpointError, match=r"layers\.0\.x.* format 'int2_magic'.*known are"):
        read_files([file])


Change = Callable[[Raw, dict[str, Any]], None]
W = "layers.0.x"


def _sized(name: str, kind: str, *shape: int) -> Change:
    """A tensor of another type or shape."""
    size = {"F32": 4, "BF16": 2}.get(kind, 1)

    def change(tensors: Raw, mark: dict[str, Any]) -> None:
        tensors[f"{W}.{name}"] = (kind, shape, bytes(size * int(np.prod(shape))))

    return change


def _marked(**fields: Any) -> Change:
    return lambda tensors, mark: mark.update(fields)


def _without(name: str) -> Change:
    def change(tensors: Raw, mark: dict[str, Any]) -> None:
        del tensors[f"{W}.{name}"]

    return change


BROKEN: dict[str, tuple[Callable[[np.ndarray], comfy.Layer], Change, str]] = {
    "nvfp4 without its scales": (comfy.nvfp4, _without("weight_scale"), "must come with"),
    "nvfp4 without its scale": (comfy.nvfp4, _without("weight_scale_2"), "must come with"),
    "scales in rows": (comfy.nvfp4, _sized("weight_scale", "F8_E4M3", 200, 16), "have the type"),
    "nvfp4's numbers": (comfy.nvfp4, _sized("weight", "F32", 200, 128), "a matrix of I8 or U8"),
    "mxfp8's groups": (comfy.mxfp8, _sized("weight", "F8_E4M3", 200, 250), "groups of 32"),
    "mxfp8's scales": (comfy.mxfp8, _sized("weight_scale", "F32", 256, 8), "have the type"),
    "a scale too many": (comfy.int8, _sized("weight_scale", "F32", 201, 1), "have the type"),
    "a rotation of 24": (comfy.int8, _marked(convrot_groupsize=24), "regular-24"),
    "a rotation that does not fit": (comfy.w4a4, _marked(convrot_groupsize=1024), "256 wide"),
    "a rotation of 0": (comfy.w4a4, _marked(convrot_groupsize=0), "a number from 1 on"),
    "a rotation of words": (comfy.int8, _marked(convrot_groupsize="x"), "a number from 1 on"),
    "w4a8 without scales": (comfy.w4a8, _without("weight_s_rel"), "must come with"),
    "w4a8 in other groups": (comfy.w4a8, _marked(group_size=32), "4 or 6 bits"),
    "a short codebook": (comfy.w4a8, _sized("weight_codebook", "F32", 8), "have the type"),
    "awq in groups of 16": (comfy.awq, _marked(group_size=16), "must be 32, 64 or 128"),
    "awq in other groups": (comfy.awq, _marked(group_size=128), "have the type"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_layers_are_named(tmp_path: Path, name: str) -> None:
    write, change, match = BROKEN[name]
    parts, mark, _ = write(np.random.default_rng(0).standard_normal((200, 256)))
    tensors: Raw = {f"{W}.{key}": part for key, part in parts.items()}
    tensors["x_embedder.weight"] = f32(np.ones((1, 1)))
    change(tensors, mark)
    tensors[f"{W}.comfy_quant"] = text(json.dumps(mark))
    with pytest.raises(CheckpointError, match=match) as error:
        read_files([write_raw(tmp_path / "a", tensors)])
    assert "layers.0.x" in str(error.value)
    assert "\n" not in str(error.value)
