"""Folders in the official layout that SDNQ and mlx-vlm wrote: numbers, latents, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import CheckpointError, ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.weights.formats import read_component
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.tensor import Tensors
from tests.measures import relative_error

from . import foreign, sdnq
from .raw import Raw, f32, write_raw
from .sdnq import Form

DRAWN: dict[str, Any] = {"width": 32, "height": 32, "steps": 2, "seed": 1}
FORMS: dict[str, tuple[Form, Packing | None]] = {
    "uint4": (Form("uint4", 64), Packing("affine", 4, 64)),
    "uint4 svd": (Form("uint4", 128, rank=32), Packing("affine", 4, 128, rank=32)),
    "int4": (Form("int4", 32), Packing("affine", 4, 32)),
    "uint2": (Form("uint2", 32), Packing("affine", 2, 32)),
    "uint2 in groups that MLX lacks": (Form("uint2", 16), None),
    "int8 svd, rotated, in such groups": (Form("int8", 24, rank=8, hadamard=128), None),
    "uint8": (Form("uint8"), Packing("affine", 8, 128)),
    "int8": (Form("int8"), Packing("affine", 8, 128, output_scale=True)),
    "int8 in two groups": (Form("int8", 192), Packing("affine", 8, 64)),
    "int8 of a tensor": (Form("int8", -1), Packing("affine", 8, 128, output_scale=True)),
    "int8 svd, turned": (
        Form("int8", rank=16, turned=True),
        Packing("affine", 8, 128, rank=16, output_scale=True),
    ),
    "uint4 svd, rotated": (
        Form("uint4", 64, rank=16, hadamard=128),
        Packing("affine", 4, 64, "hadamard-128", rank=16),
    ),
    "int8, rotated": (
        Form("int8", hadamard=64),
        Packing("affine", 8, 128, "regular-64", output_scale=True),
    ),
}


def _layer(folder: Path, parts: Raw, settings: dict[str, Any]) -> Tensors:
    tensors = {f"layers.0.x.{name}": part for name, part in parts.items()}
    write_raw(folder / "a.safetensors", {**tensors, "y.weight": f32(np.ones(3))})
    return read_component(folder, {"quantization_config": settings})


@pytest.mark.parametrize("name", FORMS)
def test_numbers_of_sdnq(tmp_path: Path, name: str) -> None:
    """The relative error is at most 2e-7, of float32, wherever a range of rows begins."""
    form, packing = FORMS[name]
    matrix = np.random.default_rng(0).standard_normal((160, 384)).astype(np.float32)
    parts, numbers = sdnq.layer(matrix, form)
    tensor = _layer(tmp_path, parts, form.settings)["layers.0.x.weight"]
    assert tensor.shape == (160, 384)
    assert tensor.packing == packing
    for start, stop in ((0, 160), (0, 1), (50, 155)):
        assert relative_error(tensor.rows(start, stop), numbers[start:stop]) <= 3e-7


def test_layers_of_other_types(tmp_path: Path) -> None:
    """A matrix is of the type that its name says, or of at least so many bits."""
    parts, numbers = sdnq.layer(np.random.default_rng(0).standard_normal((64, 128)), Form("int8"))
    usual = Form("uint4", 64).settings
    for more in (
        {"modules_dtype_dict": {"int8": ["layers.0.x.weight"]}},
        {"modules_dtype_dict": {"minimum_8bit": ["layers.0.*"], "uint2": ["y"]}},
        {"modules_quant_config": {"x": {"weights_dtype": "int8", "group_size": -1}}},
    ):
        tensor = _layer(tmp_path, parts, usual | more)["layers.0.x.weight"]
        assert relative_error(tensor.read(), numbers) <= 3e-7


@pytest.mark.parametrize(
    "name", ["uint4 svd", pytest.param("int8, rotated", marks=pytest.mark.slow)]
)
def test_sdnq_draws_what_the_dense_weights_draw(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """As it lies there, and written as it is stored: within 4e-7."""
    source, (form, _) = checkpoint("tiled"), FORMS[name]
    folder, arrays = tmp_path / "sdnq", foreign.official(source, "transformer")
    dense = sdnq.folder(source, folder, arrays, form, beside="int8" in name)
    plain = foreign.replaced(source, tmp_path / "plain", dense)
    list(convert_checkpoint(Conversion.plan(folder, dtype="float32"), tmp_path / "out"))
    assert [*verify_checkpoint(tmp_path / "out")]
    latents = ZImage.load(plain, dtype="float32").generate("x", **DRAWN).latents
    for place in (folder, tmp_path / "out"):
        model = ZImage.load(place, dtype="float32")
        assert relative_error(model.generate("x", **DRAWN).latents, latents) <= 1e-6


Change = Callable[[Raw, dict[str, Any]], Any]
BROKEN: dict[str, tuple[Form, Change, str]] = {
    "an unknown type": (
        Form("int8"),
        lambda parts, settings: settings.update(weights_dtype="int7"),
        "quantized to 'int7', which cannot be read",
    ),
    "no type": (Form("int8"), lambda parts, settings: settings.pop("weights_dtype"), "to None"),
    "a codebook": (
        Form("uint4", 64),
        lambda parts, settings: settings.update(use_codebook=True),
        "with use_codebook True",
    ),
    "scales of scales": (
        Form("uint4", 64),
        lambda parts, settings: parts.update(scale_2=f32(np.ones(1))),
        "quantized themselves",
    ),
    "no zero point": (
        Form("uint4", 64),
        lambda parts, settings: parts.pop("zero_point"),
        "must come with 'layers.0.x.zero_point'",
    ),
    "a zero point of other groups": (
        Form("uint4", 64),
        lambda parts, settings: parts.update(zero_point=f32(np.ones((96, 3, 1)))),
        "must come with",
    ),
    "scales of other rows": (
        Form("int8"),
        lambda parts, settings: parts.update(scale=f32(np.ones((95, 1)))),
        "are no matrix",
    ),
    "scales of no row": (
        Form("uint4", 64),
        lambda parts, settings: parts.update(scale=f32(np.ones((0, 4, 1)))),
        "are no matrix",
    ),
    "half a path": (
        Form("int8", rank=16),
        lambda parts, settings: parts.pop("svd_up"),
        "both svd_up and svd_down",
    ),
    "ranks that differ": (
        Form("int8", rank=16),
        lambda parts, settings: parts.update(svd_up=f32(np.ones((96, 8)))),
        r"svd_down'.* must have the shape \(8, 256\)",
    ),
    "levels of another type": (
        Form("uint8"),
        lambda parts, settings: settings.update(weights_dtype="int8"),
        "must be of I8",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_layers_of_sdnq_are_named(tmp_path: Path, name: str) -> None:
    form, change, match = BROKEN[name]
    parts, _ = sdnq.layer(np.random.default_rng(0).standard_normal((96, 256)), form)
    settings = form.settings
    change(parts, settings)
    with pytest.raises(CheckpointError, match=match) as error:
        _layer(tmp_path, parts, settings)
    assert "layers.0.x" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "packing",
    [
        ("affine", 4, 64),
        *(pytest.param(p, marks=pytest.mark.slow) for p in (None, ("mxfp8", 8, 32))),
    ],
)
def test_mlx_vlm(
    checkpoint: Callable[[str], Path], tmp_path: Path, packing: tuple[str, int, int] | None
) -> None:
    """Every number comes back as it was or as its packed ones say, and it draws."""
    source = checkpoint("even")
    folder = foreign.mlx_vlm(source, tmp_path / "vlm", packing)
    opened = Checkpoint.open(folder)
    for part in COMPONENTS:
        expected = foreign.official(source, part)
        found = opened[part].tensors
        assert found.keys() == {key for key in expected if not key.startswith("lm_head.")}
        for key, tensor in found.items():
            array = mx.array(expected[key])
            if tensor.packing is not None and packing is not None:
                mode, bits, group = packing
                packed = mx.quantize(array, group, bits, mode=mode)
                array = mx.dequantize(*packed, group_size=group, bits=bits, mode=mode)
            assert mx.array_equal(tensor.read(), array), key
    packings = {t.packing for part in COMPONENTS for t in opened[part].tensors.values()} - {None}
    assert packings == ({Packing(*packing)} if packing else set())
    list(convert_checkpoint(Conversion.plan(folder, dtype="float32"), tmp_path / "out"))
    latents = [
        ZImage.load(place, dtype="float32").generate("x", **DRAWN).latents
        for place in (folder, tmp_path / "out", *([] if packing else [source]))
    ]
    assert all(mx.array_equal(latents[0], other) for other in latents[1:])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"quantization_mode": "nf4"}, "quantized in an unknown way: mode nf4"),
        ({"quantization_level": "x"}, "quantized in an unknown way: .*bits 'x'"),
        ({"quantization_group_size": "32"}, "must come with"),
    ],
)
def test_mlx_vlm_metadata_that_do_not_fit(
    checkpoint: Callable[[str], Path], tmp_path: Path, change: dict[str, str], match: str
) -> None:
    folder = foreign.mlx_vlm(checkpoint("even"), tmp_path / "vlm", ("affine", 4, 64))
    index = folder / "transformer/model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["metadata"] |= change
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=match):
        Checkpoint.open(folder)
