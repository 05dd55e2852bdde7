"""Folders for other programs: keys, orders and metadata as those programs read them.

tests/peers runs the programs themselves.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors import safe_open

from mlx_zimage import Conversion, RequestError, ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.convert import write
from mlx_zimage.convert.exports import MLX_VLM, TARGETS, check, files_for

DRAWN = {"width": 32, "height": 32, "steps": 1, "seed": 1}


def _convert(source: Path, out: Path, **options: Any) -> Path:
    for _ in convert_checkpoint(Conversion.plan(source, **options), out):
        pass
    return out


def _tensors(folder: Path) -> dict[str, mx.array]:
    arrays: dict[str, mx.array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        loaded: Any = mx.load(str(file))
        arrays |= loaded
    return arrays


def _same(one: mx.array, other: mx.array) -> bool:
    return one.dtype == other.dtype and mx.array_equal(one, other).item()


@pytest.fixture(scope="module")
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("even")


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _convert(source, tmp_path_factory.mktemp("plain") / "out", dtype="float32")


@pytest.fixture(scope="module")
def mflux(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mflux") / "out"
    return _convert(source, out, dtype="float32", target="mflux")


def test_mflux_has_the_same_numbers(plain: Path, mflux: Path) -> None:
    """By their own table: names of one module each, and convolutions in MLX's order."""
    pairs = {
        "transformer": {
            "t_embedder.mlp.0.bias": "t_embedder.linear1.bias",
            "t_embedder.mlp.2.weight": "t_embedder.linear2.weight",
            "all_final_layer.2-1.adaLN_modulation.1.weight": (
                "all_final_layer.2-1.adaLN_modulation.0.weight"
            ),
            "layers.0.attention.to_out.0.weight": "layers.0.attention.to_out.0.weight",
            "noise_refiner.0.adaLN_modulation.0.bias": "noise_refiner.0.adaLN_modulation.0.bias",
        },
        "text_encoder": {
            "model.embed_tokens.weight": "embed_tokens.weight",
            "model.layers.1.self_attn.q_norm.weight": "layers.1.self_attn.q_norm.weight",
        },
        "vae": {
            "encoder.conv_in.weight": "encoder.conv_in.conv2d.weight",
            "encoder.conv_out.bias": "encoder.conv_out.conv2d.bias",
            "decoder.conv_in.weight": "decoder.conv_in.conv.weight",
            "decoder.conv_out.weight": "decoder.conv_out.conv.weight",
            "decoder.conv_norm_out.bias": "decoder.conv_norm_out.norm.bias",
            "decoder.up_blocks.0.upsamplers.0.conv.weight": (
                "decoder.up_blocks.0.upsamplers.0.conv.weight"
            ),
            "decoder.mid_block.attentions.0.to_out.0.weight": (
                "decoder.mid_block.attentions.0.to_out.0.weight"
            ),
        },
    }
    for component, names in pairs.items():
        ours, theirs = _tensors(plain / component), _tensors(mflux / component)
        assert len(ours) == len(theirs)
        for key, name in names.items():
            array = ours[key].transpose(0, 2, 3, 1) if ours[key].ndim == 4 else ours[key]
            assert _same(array, theirs[name]), key


def test_mflux_knows_its_own(mflux: Path, source: Path, tmp_path: Path) -> None:
    """Metadata in each file and in the index; the tokenizer, and no configs."""
    quantized = _convert(source, tmp_path / "out", quantize=4, target="mflux")
    for folder, levels in ((mflux, ["None"] * 3), (quantized, ["4", "4", "None"])):
        for component, level in zip(("text_encoder", "transformer", "vae"), levels, strict=True):
            with safe_open(folder / component / "0.safetensors", "np") as handle:
                about = handle.metadata()
            assert about == {"quantization_level": level, "mflux_version": "0.24.0"}
            index = json.loads((folder / component / "model.safetensors.index.json").read_text())
            assert index["metadata"]["quantization_level"] == level
            assert {*index["weight_map"]} == {*_tensors(folder / component)}
        assert (folder / "tokenizer/tokenizer.json").is_file()
        assert not [*folder.rglob("config.json"), *folder.glob("model_index.json")]


def test_mflux_folders_are_read_again(plain: Path, mflux: Path, tmp_path: Path) -> None:
    """To the bit, with the configs of a base; `verify` takes the folder as it is."""
    assert [*verify_checkpoint(mflux)][-3:] == ["text_encoder", "transformer", "vae"]
    back = tmp_path / "back"
    conversion = Conversion.plan(mflux, dtype="float32", base=plain)
    for _ in convert_checkpoint(conversion, back):
        pass
    for component in ("text_encoder", "transformer", "vae"):
        ours, again = _tensors(plain / component), _tensors(back / component)
        assert ours.keys() == again.keys()
        assert all(_same(ours[key], again[key]) for key in ours)


@pytest.mark.parametrize(("quantize", "group"), [(4, 64), ("mxfp8", 32)])
def test_our_quantized_folders_say_what_mlx_vlm_asks(
    source: Path, tmp_path: Path, quantize: int | str, group: int
) -> None:
    """In an index of the one name that it looks for, beside files of any name."""
    out = _convert(source, tmp_path / "out", quantize=quantize)
    for component in ("transformer", "text_encoder"):
        index = json.loads((out / component / "model.safetensors.index.json").read_text())
        about = index["metadata"]
        assert about["quantization_level"] == str(8 if quantize == "mxfp8" else 4)
        assert about["quantization_mode"] == ("affine" if quantize == 4 else quantize)
        assert about["quantization_group_size"] == str(group)
        assert {*index["weight_map"]} == {*_tensors(out / component)}
    assert not (out / "vae/model.safetensors.index.json").exists()
    ZImage.load(out).generate("x", **DRAWN)


def test_shards_have_one_index(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "SHARD", 400_000)
    out = _convert(source, tmp_path / "out", quantize=4)
    assert len([*(out / "transformer").glob("*.safetensors")]) > 1
    assert len([*(out / "transformer").glob("*.index.json")]) == 1
    assert (out / "vae/diffusion_pytorch_model.safetensors.index.json").is_file()
    ZImage.load(out)


def test_diffusers_gets_no_quantized_layers(source: Path, tmp_path: Path) -> None:
    packed = _convert(source, tmp_path / "packed", quantize=4, dtype="float32")
    out = _convert(packed, tmp_path / "out", dtype="float32", target="diffusers")
    assert {a.dtype for a in _tensors(out / "transformer").values()} == {mx.float32}
    assert "quantization" not in json.loads((out / "transformer/config.json").read_text())
    one, other = (ZImage.load(f, dtype="float32").generate("x", **DRAWN) for f in (packed, out))
    difference = np.abs(one.latents - other.latents).max()
    assert difference < 3e-6  # products of packed weights round differently


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "comfyui"}, "for mlx-vlm, mflux or diffusers, not for 'comfyui'"),
        (
            {"target": "mflux", "quantize": "mxfp4"},
            "mflux loads numbers of bits, and the [a-z_]+ is to be in mxfp4",
        ),
        ({"target": "mflux", "quantize": 4, "group_size": 32}, "mflux packs in groups of 64"),
        ({"target": "diffusers", "quantize": 4}, "diffusers loads 16 or 32 bit alone"),
        ({"target": "mflux", "only": "vae"}, "mflux needs all components; leave out only='vae'"),
    ],
)
def test_refused(source: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Conversion.plan(source, **options)


def test_what_another_program_has_no_place_for(checkpoint: Callable[[str], Path]) -> None:
    convolutions = checkpoint("diffusers")  # with quant convolutions
    for name in ("mlx-vlm", "mflux"):
        with pytest.raises(
            RequestError, match=rf"{name} has no place for the vae's '\w*quant_conv"
        ):
            Conversion.plan(convolutions, target=name)
    assert Conversion.plan(convolutions, target="diffusers").target is TARGETS["diffusers"]


def test_one_packing_for_mlx_vlm(source: Path, tmp_path: Path) -> None:
    """Two kinds of packing in one component are written for us alone."""
    plan = Conversion.plan(source, quantize=4)
    packings = dict(plan.packings["transformer"])
    first = next(iter(packings))
    packings[first] = type(packings[first])("affine", 8, 64)
    with pytest.raises(RequestError, match="the transformer is to have 2 kinds"):
        check(MLX_VLM, {"transformer": packings}, {"transformer": plan.tensors("transformer")})
    assert files_for(None, "transformer", packings).about == {}
