"""Folders in the official layout: their true traits, and every way they can be broken."""

import contextlib
import gc
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_zimage import CheckpointError, ZImage, convert_checkpoint
from mlx_zimage.checkpoint.assemble import quantize
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.memory.estimate import WeightBytes
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.safetensors import read_header
from mlx_zimage.weights.tensor import Tensor
from tests.checkpoint.broken import (
    copy,
    drop_tensor,
    edit_header,
    edit_json,
    rename_tensor,
    shards,
)
from tests.make_checkpoint import random_tensor

INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    return copy(checkpoint("small"), tmp_path / "ck")


@pytest.fixture
def single(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    return copy(checkpoint("diffusers"), tmp_path / "ck")


def test_official_traits(folder: Path) -> None:
    """Float32 shards with an index; a bfloat16 text encoder under `model.`, with no head."""
    transformer = [read_header(file) for file in shards(folder / "transformer")]
    assert len(transformer) == 3
    assert {entry.dtype for header in transformer for entry in header.values()} == {"F32"}
    encoder = {
        k: e for file in shards(folder / "text_encoder") for k, e in read_header(file).items()
    }
    assert all(key.startswith("model.") for key in encoder)
    assert {entry.dtype for entry in encoder.values()} == {"BF16"}
    assert (folder / "transformer" / INDEX).is_file()
    Checkpoint.open(folder)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_every_weight_arrives(folder: Path, dtype: mx.Dtype) -> None:
    checkpoint = Checkpoint.open(folder)
    for model, part in (
        (checkpoint["transformer"].load(dtype, None), "transformer"),
        (checkpoint["text_encoder"].load(dtype, None), "text_encoder"),
        (checkpoint["vae"].load(dtype), "vae"),
    ):
        stored = mx.bfloat16 if part == "text_encoder" else mx.float32
        for key, value in tree_flatten(model.parameters()):
            shape = value.shape
            if len(shape) == 4:
                shape = (shape[0], shape[3], shape[1], shape[2])
            expected = mx.array(random_tensor(key, shape)).astype(stored).astype(dtype)
            if len(shape) == 4:
                expected = expected.transpose(0, 2, 3, 1)
            assert value.dtype == dtype
            assert mx.array_equal(value, expected), key


def test_a_text_encoder_without_the_prefix(single: Path) -> None:
    assert not any(k.startswith("model.") for k in read_header(shards(single / "text_encoder")[0]))
    Checkpoint.open(single)["text_encoder"].load(mx.float32, None)


def test_a_tied_head_that_was_saved_is_left(folder: Path) -> None:
    last = shards(folder / "text_encoder")[-1]
    rename_tensor(last, "model.norm.weight", "lm_head.weight")
    edit_json(
        folder / "text_encoder/model.safetensors.index.json",
        lambda index: index["weight_map"].update(
            {"lm_head.weight": index["weight_map"].pop("model.norm.weight")}
        ),
    )
    Checkpoint.open(folder)


@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_files_that_change_after_they_were_opened(folder: Path, change: str) -> None:
    opened = Checkpoint.open(folder)
    file = shards(folder / "transformer")[1]
    data = file.read_bytes()
    file.unlink()
    if change != "gone":
        file.write_bytes(data[:-1000] if change == "shorter" else data + b"x")
    with pytest.raises(CheckpointError, match=r"was changed while it was|cannot be read"):
        opened["transformer"].load(mx.float32, None)


@pytest.mark.parametrize("part", ["text_encoder", "transformer"])
def test_weights_that_stay_as_stored_are_held_once(folder: Path, part: str) -> None:
    opened = Checkpoint.open(folder)
    dtype = mx.bfloat16 if part == "text_encoder" else mx.float32  # as the files have them
    gc.collect()
    before = mx.get_active_memory()
    model = opened[part].load(dtype)
    mx.eval(model.parameters())
    held = mx.get_active_memory() - before
    total = WeightBytes.of(opened[part], dtype, {}).total
    print(f"{held / total:.3f} of the weights' bytes")
    assert total <= held < 1.5 * total  # 1.00 and 1.08: the allocator rounds small arrays up


def test_what_is_loaded_is_cast(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Left for later, scales would stay in memory as they were stored: 190 MB of the real model."""
    list(
        convert_checkpoint(
            Conversion.plan(checkpoint("demo"), quantize=4, dtype="float32"), tmp_path / "ck"
        )
    )
    model = Checkpoint.open(tmp_path / "ck")["transformer"].load(mx.bfloat16, None)
    gc.collect()
    held = mx.get_active_memory()
    mx.eval(model.parameters())
    assert mx.get_active_memory() == held


def test_loading_peaks_below_one_and_a_half_models(checkpoint: Callable[[str], Path]) -> None:
    opened = Checkpoint.open(checkpoint("wide"))
    size = WeightBytes.of(opened["transformer"], mx.bfloat16, {}).total
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = opened["transformer"].load(mx.bfloat16, None)
    peak = mx.get_peak_memory() - before
    print(f"loading {size / 1e6:.1f} MB of bfloat16 from float32 peaked at {peak / 1e6:.1f} MB")
    assert peak < 1.5 * size
    del model


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_quantizing_peaks_below_the_result_and_one_tensor(bits: int) -> None:
    """A matrix of 31 million numbers, 126 MB in float32, is never whole in memory."""
    shape = (15360, 2048)
    tile = mx.random.normal((64, shape[1]), key=mx.random.key(0))

    def rows(start: int, stop: int) -> mx.array:
        return mx.concatenate([tile] * -(-(stop - start) // 64))[: stop - start]

    tensor = Tensor("x", shape, "F32", ("", 0), rows)
    mx.eval(tile)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    arrays = quantize(tensor, Packing("affine", bits, 64), mx.bfloat16)
    mx.eval(arrays)
    peak, size = mx.get_peak_memory() - before, sum(array.nbytes for array in arrays)
    print(f"{bits} bits: {size / 1e6:.0f} MB came of 126, at a peak of {peak / 1e6:.0f} MB")
    assert peak < size + 4 * shape[0] * shape[1]


def _error(folder: Path) -> str:
    """The one line a user reads; the weights are never touched to get it."""
    with pytest.raises(CheckpointError) as caught:
        ZImage.load(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def test_a_missing_shard(folder: Path) -> None:
    shards(folder / "transformer")[1].unlink()
    assert "lacks diffusion_pytorch_model-00002-of-00003.safetensors" in _error(folder)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1, -100_000])
def test_a_truncated_shard(folder: Path, kept: int) -> None:
    file = shards(folder / "transformer")[2]
    file.write_bytes(file.read_bytes()[:kept])
    text = _error(folder)
    assert "00003-of-00003" in text
    assert "truncated" in text or "cannot be read" in text


def test_a_missing_key(folder: Path) -> None:
    file = shards(folder / "transformer")[0]
    drop_tensor(file, "cap_pad_token")
    assert "lacks tensor 'cap_pad_token', which the index puts there" in _error(folder)
    index = folder / "transformer" / INDEX
    edit_json(index, lambda data: data["weight_map"].pop("cap_pad_token"))
    assert "transformer lacks tensor 'cap_pad_token'; the files are incomplete" in _error(folder)


def test_an_unknown_key(single: Path) -> None:
    file = shards(single / "transformer")[0]
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    mx.save_safetensors(str(file), {**weights, "extra.weight": mx.zeros((3,))})
    assert "holds tensor 'extra.weight', unknown to this model" in _error(single)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("decoder.conv_in.bias"), "must begin where the one before it ends"),
        (lambda h: h.update(again=h["decoder.conv_in.bias"]), "must begin where the one before"),
    ],
    ids=["hole", "overlap"],
)
def test_holes_and_overlaps(
    single: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit_header(shards(single / "vae")[0], change)
    assert message in _error(single)


def test_bytes_after_the_last_tensor(single: Path) -> None:
    file = shards(single / "vae")[0]
    file.write_bytes(file.read_bytes() + b"junk")
    assert "has 4 bytes after its last tensor" in _error(single)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    """A token beyond the embedding would be read from anywhere in memory."""

    def shift(data: dict[str, Any]) -> None:
        vocabulary = data["model"]["vocab"]
        vocabulary["x"] = 5000

    edit_json(folder / "tokenizer/tokenizer.json", shift)
    with pytest.raises(CheckpointError, match="gives token 5000, and the text encoder has 320"):
        ZImage.load(folder).generate("x", width=32, height=32, steps=1)


@pytest.mark.parametrize("part", ["text_encoder", "transformer", "vae"])
def test_weights_that_are_not_numbers(single: Path, part: str) -> None:
    file = shards(single / part)[0]
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    key = {
        "text_encoder": "layers.0.input_layernorm.weight",
        "transformer": "layers.0.attention_norm1.weight",
        "vae": "decoder.conv_in.bias",
    }[part]
    weights[key] = weights[key] * float("nan")
    mx.save_safetensors(str(file), weights)
    with pytest.raises(CheckpointError, match="makes numbers that are not finite in"):
        ZImage.load(single).generate("x", width=32, height=32, steps=1, guidance=0)


def test_many_keys_are_not_all_named(folder: Path) -> None:
    edit_json(folder / "transformer/config.json", lambda config: config.update(n_layers=5))
    assert "and 27 more tensors" in _error(folder)


def test_keys_the_index_does_not_list(folder: Path) -> None:
    index = folder / "transformer" / INDEX
    edit_json(index, lambda data: data["weight_map"].pop("cap_pad_token"))
    assert "does not list tensor 'cap_pad_token'" in _error(folder)


def test_a_key_that_comes_twice(single: Path) -> None:
    file = next((single / "vae").glob("*.safetensors"))
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + length].decode().rstrip()
    key, entry = next(iter({k: v for k, v in json.loads(header).items() if k[0] != "_"}.items()))
    twice = f"{header[:-1]},{json.dumps(key)}:{json.dumps(entry)}}}".encode()
    file.write_bytes(struct.pack("<Q", len(twice)) + twice + data[8 + length :])
    assert f"the header names '{key}' twice" in _error(single)


def test_a_wrong_shape(single: Path) -> None:
    file = shards(single / "transformer")[0]
    edit_header(file, lambda h: h["x_pad_token"].update(shape=[32, 1]))
    assert "tensor 'x_pad_token' must have the shape (1, 32), not (32, 1)" in _error(single)


def test_a_wrong_type(single: Path) -> None:
    file = shards(single / "transformer")[0]
    edit_header(file, lambda h: h["x_pad_token"].update(dtype="I32"))
    assert "tensor 'x_pad_token' must be one of F16, BF16, F32, not I32" in _error(single)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1, 32], "data_offsets": [-128, 0]},
        {"dtype": "F32", "shape": [1, 32], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [-1, -32], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [1, 32]},
        {"dtype": "F32", "shape": [1, 32], "data_offsets": [0.0, 128.0]},
        [1],
        None,
    ],
)
def test_a_broken_entry(single: Path, entry: Any) -> None:
    edit_header(shards(single / "vae")[0], lambda h: h.update({"decoder.conv_in.bias": entry}))
    assert "the header entry of tensor 'decoder.conv_in.bias' is broken" in _error(single)


@pytest.mark.parametrize("kind", ["Q9", "F4", "F8_E8M0"])
def test_a_type_that_cannot_be_read(single: Path, kind: str) -> None:
    """The file is whole: fetching it again would not help."""
    file = shards(single / "vae")[0]

    def change(header: dict[str, Any]) -> None:
        key, entry = next((k, e) for k, e in header.items() if "shape" in e)
        start, stop = entry["data_offsets"]
        header[key] = {"dtype": kind, "shape": [stop - start], "data_offsets": [start, stop]}

    edit_header(file, change)
    assert "again" not in _error(single)


def test_files_that_macos_leaves(folder: Path) -> None:
    for part in ("vae", "transformer"):
        (folder / part / "._model.safetensors").write_bytes(b"x")
        (folder / part / "._model.safetensors.index.json").write_bytes(b"x")
    ZImage.load(folder)


@pytest.mark.parametrize("header", [b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"3"])
def test_a_broken_header(single: Path, header: bytes) -> None:
    shards(single / "vae")[0].write_bytes(struct.pack("<Q", len(header)) + header)
    _error(single)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**12, 200_000_000])
def test_an_absurd_header_length(single: Path, length: int) -> None:
    file = shards(single / "vae")[0]
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    assert "truncated or no safetensors file" in _error(single)


def test_no_weights(single: Path) -> None:
    shards(single / "vae")[0].unlink()
    assert "must hold a .safetensors file" in _error(single)
    (single / "vae/diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "is a pickle, which is never loaded" in _error(single)


def test_files_without_an_index(folder: Path) -> None:
    (folder / "transformer" / INDEX).unlink()
    assert "holds 3 safetensors files and no index" in _error(folder)


@pytest.mark.parametrize(
    "place", ["../vae/x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "c:x"]
)
def test_an_index_that_leaves_its_folder(folder: Path, place: str) -> None:
    index = folder / "transformer" / INDEX
    edit_json(index, lambda data: data["weight_map"].update(cap_pad_token=place))
    assert "must name files beside it" in _error(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}']
)
def test_a_broken_index(folder: Path, text: str) -> None:
    (folder / "transformer" / INDEX).write_text(text)
    _error(folder)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("transformer", "dim"),
        ("transformer", "axes_dims"),
        ("text_encoder", "head_dim"),
        ("text_encoder", "rope_theta"),
        ("vae", "block_out_channels"),
        ("vae", "scaling_factor"),
    ],
)
def test_a_config_with_a_missing_field(folder: Path, part: str, field: str) -> None:
    edit_json(folder / part / "config.json", lambda config: config.pop(field))
    assert f"must hold '{field}', which is missing" in _error(folder)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("transformer", {"dim": "96"}, "'dim' must be a whole number from 1 to 16777215, not '96'"),
        ("transformer", {"n_heads": 0}, "'n_heads' must be a whole number from 1"),
        ("transformer", {"n_heads": 5}, "dim / n_heads must equal the sum of axes_dims"),
        ("transformer", {"axes_dims": [16, 16]}, "must each have three entries"),
        ("transformer", {"axes_dims": []}, "'axes_dims' must be a list of whole numbers"),
        ("transformer", {"siglip_feat_dim": 1152}, "this is an Omni checkpoint"),
        ("transformer", {"all_f_patch_size": [2]}, "all_patch_size must hold 2"),
        ("transformer", {"cap_feat_dim": 64}, "they are of two models"),
        ("transformer", {"in_channels": 8}, "they are of two models"),
        ("text_encoder", {"rope_scaling": {"rope_type": "yarn"}}, "must be 'default', not 'yarn'"),
        ("text_encoder", {"num_hidden_layers": 1}, "must be at least 2"),
        ("text_encoder", {"use_sliding_window": True}, "'use_sliding_window' must be false"),
        ("transformer", {"n_layers": 10**6}, "'n_layers' may be at most 256"),
        ("vae", {"layers_per_block": 10**6}, "'layers_per_block' may be at most 16"),
        ("vae", {"act_fn": "gelu"}, "'act_fn' must be 'silu'"),
        ("vae", {"scaling_factor": float("nan")}, "'scaling_factor' must be a number within"),
        ("vae", {"norm_num_groups": 7}, "must divide every entry of block_out_channels"),
        ("vae", {"down_block_types": ["X"]}, r"block types ['X'] are not supported"),
    ],
)
def test_a_config_with_a_wrong_field(
    folder: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    edit_json(folder / part / "config.json", lambda config: config.update(changes))
    assert message in _error(folder)


def test_unknown_fields_are_dropped(folder: Path) -> None:
    for part in ("transformer", "text_encoder", "vae"):
        edit_json(folder / part / "config.json", lambda config: config.update(novelty=[{}]))
    ZImage.load(folder)


@pytest.mark.parametrize("style", ["old", "transformers 5"])
def test_both_spellings_of_the_rotary_base(folder: Path, style: str) -> None:
    def change(config: dict[str, Any]) -> None:
        theta = config.pop("rope_theta")
        if style == "old":
            config.update(rope_theta=theta, rope_scaling=None)
        else:
            config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}

    edit_json(folder / "text_encoder/config.json", change)
    assert Checkpoint.open(folder).text_encoder.rope_theta == 1e6


@pytest.mark.parametrize(
    "file",
    [
        "transformer/config.json",
        "text_encoder/config.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_missing_or_broken_file(folder: Path, file: str) -> None:
    text = (folder / file).read_text("utf-8")
    (folder / file).write_text(text[: len(text) // 2], "utf-8")
    assert "cannot be read" in _error(folder)
    (folder / file).unlink()
    assert "is missing" in _error(folder) or "must hold tokenizer.json" in _error(folder)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("x")
    assert "is no checkpoint: it has no model_index.json and none of" in _error(tmp_path)


def test_a_shard_that_disappears_after_opening(folder: Path) -> None:
    model = ZImage.load(folder)
    shutil.rmtree(folder / "vae")
    with pytest.raises(CheckpointError, match="cannot be read"):
        model.generate("x", width=32, height=32, steps=1)


@pytest.mark.slow
def test_every_json_survives_mutation(folder: Path) -> None:
    """Hundreds of broken configs: a typed error, or a model; never another exception."""
    import random

    generator = random.Random(0)
    values: list[Any] = [None, 0, -1, 1, 2**40, 1.5, "x", [], [0], [1, 2], {}, True, float("inf")]
    for part in ("transformer", "text_encoder", "vae"):
        file = folder / part / "config.json"
        kept = json.loads(file.read_text())
        for _ in range(150):
            config = {**kept, generator.choice(sorted(kept)): generator.choice(values)}
            file.write_text(json.dumps(config))
            with contextlib.suppress(CheckpointError):
                Checkpoint.open(folder)
        file.write_text(json.dumps(kept))
