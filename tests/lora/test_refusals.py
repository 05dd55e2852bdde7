"""Files that no LoRA should be read from: each is refused in one line that names what is wrong."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_zimage import CheckpointError, LoraError, ZImage
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.forms import Change, LowRank

from .handmade import QUERY, WIDTH, Tensors, kohya, numbers, pair, tensors, tiny
from .stored import store, write

MODULE = f"diffusion_model.{QUERY}"
FLUX = "lora_unet_double_blocks_0_img_attn_qkv"
NAN = store(np.full((48, 2), np.nan), "F32")


def refusal(path: Path) -> str:
    """Return the one line that a file is refused with."""
    with pytest.raises(LoraError) as caught:
        Adapter.open(path, tiny())
    message = str(caught.value)
    assert "\n" not in message and str(path)[:100] in message
    return message


def without(content: Tensors, tail: str) -> Tensors:
    return {key: value for key, value in content.items() if not key.endswith(tail)}


def lokr(**shapes: tuple[int, ...]) -> Tensors:
    return tensors(MODULE, {f"lokr_{name}": shape for name, shape in shapes.items()})


FULL = lokr(w1=(4, 4), w2=(12, 12))
CASES: dict[str, tuple[Tensors, str]] = {
    "an unknown tail": ({**pair(MODULE), f"{MODULE}.lora_C": numbers(1)}, "lora_C', which no kind"),
    "an unknown module": (pair("transformer.layers.7.attention.to_q"), "layers.7.attention.to_q'"),
    "nothing known": ({"latents": numbers(3)}, "is no LoRA: it holds 'latents'"),
    "no up": (
        without(pair(MODULE), "lora_B.weight"),
        "has 'lora_A.weight' and no lora_B or lora_up; the file is incomplete",
    ),
    "no down": (
        without(pair(MODULE), "lora_A.weight"),
        "has 'lora_B.weight' and no lora_A or lora_down",
    ),
    "alpha alone": (tensors(MODULE, {"alpha": ()}), "nothing they go with"),
    "two ranks": (
        {**pair(MODULE), f"{MODULE}.lora_B.weight": numbers(48, 3)},
        "of the shape (48, 3), which must be (48, 2)",
    ),
    "another width": (pair(MODULE, columns=64), "(2, 64), which must be (2, 48); the file is for"),
    "rank 0": (pair(MODULE, rank=0), "a rank must be at least 1"),
    "one dimension": ({**pair(MODULE), f"{MODULE}.lora_A.weight": numbers(48)}, "shape (48,)"),
    "fused rows": (kohya("lora_unet_layers_0_attention_qkv", 1, rows=145), "(145, 2)"),
    "w1 twice": (
        FULL | lokr(w1_a=(4, 2), w1_b=(2, 4)),
        "must have 'lokr_w1' or 'lokr_w1_a' and 'lokr_w1_b', not both",
    ),
    "half of w1": (
        lokr(w1_a=(4, 2), w2=(12, 12)),
        "has 'lokr_w1_a' and 'lokr_w2' and no lokr_w1_b",
    ),
    "w1 does not divide": (lokr(w1=(5, 4), w2=(12, 12)), "must be a multiple of its 'lokr_w1', 5"),
    "w2 of another size": (lokr(w1=(4, 4), w2=(12, 11)), "(12, 11), which must be (12, 12)"),
    "two ways": (FULL | pair(MODULE), "must be changed in one way, not by LoRA and LoKr at once"),
    "Tucker": (FULL | lokr(t2=(2, 2, 1, 1)), "a Tucker decomposition"),
    "a bias in place": (
        pair(MODULE) | tensors(MODULE, {"base_layer.bias": (48,)}),
        "a tensor of the base model that was trained in place",
    ),
    "IA3": (tensors(MODULE, {"on_input": (1,)}), "IA3"),
    "another shape": (tensors(MODULE, {"reshape_weight": (2,)}), "a weight of another shape"),
    "a norm's bias": (tensors("lycoris_layers_0_ffn_norm1", {"b_norm": (48,)}), "a bias of a norm"),
    "a pair for a norm": (pair("layers.0.ffn_norm1", rows=1), "is a norm, which"),
    "a norm of another width": (tensors("layers.0.ffn_norm1", {"w_norm": (47,)}), "must be (48,)"),
    "blocks that do not divide": (tensors(MODULE, {"oft_blocks": (9, 5, 5)}), "do not divide"),
    "butterflies too deep": (tensors(MODULE, {"oft_blocks": (6, 6, 8, 8)}), "cannot mix"),
    "no triangle": (tensors(MODULE, {"oft_R.weight": (6, 27)}), "b (b - 1) / 2"),
    "blocks of columns": (tensors(MODULE, {"oft_R.weight": (5, 28)}), "not 5 blocks of 8"),
    "fused OFT": (
        tensors("diffusion_model.layers.0.attention.qkv", {"oft_blocks": (18, 8, 8)}),
        "convert the file to the names to_q, to_k and to_v",
    ),
    "fused DoRA by columns": (
        pair("layers.0.attention.qkv", rows=144)
        | tensors("layers.0.attention.qkv", {"dora_scale": (1, 48)}),
        "a magnitude for the columns of all",
    ),
    "two magnitudes": (
        pair(MODULE) | tensors(MODULE, {"magnitude": (48,), "dora_scale": (48, 1)}),
        "must have one magnitude",
    ),
    "a magnitude alone": (tensors(MODULE, {"dora_scale": (48, 1)}), "nothing they go with"),
    "a magnitude of another width": (
        pair(MODULE) | tensors(MODULE, {"dora_scale": (1, 47)}),
        "(1, 47), which must be (48, 1) or (1, 48) or (48,)",
    ),
    "a bias of another width": (pair(MODULE) | tensors(MODULE, {"diff_b": (47,)}), "be (48,)"),
    "a whole number as a weight": (
        {**pair(MODULE), f"{MODULE}.lora_A.weight": store(np.ones((2, 48)), "I64")},
        "of the type I64, which must be one of F16",
    ),
    "NaN": ({**pair(MODULE), f"{MODULE}.lora_B.weight": NAN}, "infinite or NaN"),
    "infinity in float16": (
        {**pair(MODULE), f"{MODULE}.lora_A.weight": store(np.full((2, 48), 1e6), "F16")},
        "infinite or NaN",
    ),
    "an infinite alpha": (kohya("lora_unet_layers_0_attention_to_q", np.inf), "an alpha of inf"),
    "one tensor twice": (pair(MODULE) | kohya(MODULE, 1), "the same tensor under two names"),
    "one module twice, differently": (
        pair(MODULE) | pair(f"transformer.{QUERY}", rank=3),
        f"changes {QUERY} twice, differently: as",
    ),
    "two adapters": (
        tensors(MODULE, {"lora_A.first.weight": (2, 48), "lora_B.second.weight": (48, 2)}),
        "must hold one adapter, not 'first', 'second'",
    ),
    "FLUX": (pair(FLUX), "is a LoRA for FLUX, as 'lora_unet_double_blocks_0_img_attn_qkv' shows"),
    "FLUX in diffusers' names": (
        pair("transformer.single_transformer_blocks.0.attn.to_q"),
        "is a LoRA for FLUX",
    ),
    "SDXL": (
        pair("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"),
        "is a LoRA for Stable Diffusion or SDXL",
    ),
    "Qwen-Image": (pair("transformer.transformer_blocks.0.img_mlp.net.2"), "for Qwen-Image"),
    "Wan": (pair("diffusion_model.blocks.0.self_attn.q"), "is a LoRA for Wan"),
    "TwinFlow": (
        pair("diffusion_model.t_embedder_2.mlp.0", rows=1024, columns=256),
        "the second timestep embedder of TwinFlow, which this model lacks",
    ),
    "a text encoder alone": (
        pair("lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        "changes nothing",
    ),
    "a checkpoint": (
        {f"{QUERY}.weight": numbers(48, 48), "x_pad_token": numbers(1, 48)},
        "is no LoRA but a checkpoint: it holds 1 whole weights, such as 'layers.0",
    ),
    "a weight beside": (
        {**pair(MODULE), f"{MODULE}.weight": numbers(48, 48)},
        ".weight', which no",
    ),
    "no tensor": ({}, "must hold the tensors of a LoRA, and holds none"),
    "a key on two lines": ({**pair(MODULE), "a\nb\ud800": numbers(1)}, "'a\\nb\\ud800'"),
    "a key without an end": ({**pair(MODULE), "x." * 5000 + "alpha": numbers(1)}, "characters)"),
}


@pytest.mark.parametrize("case", CASES)
def test_contents(case: str, tmp_path: Path) -> None:
    content, words = CASES[case]
    message = refusal(write(tmp_path / "lora.safetensors", content))
    assert words in message and len(message) < 600


def test_another_model_that_the_file_names(tmp_path: Path) -> None:
    about = {"modelspec.architecture": "hunyuan-video/lora"}
    message = refusal(write(tmp_path / "lora.safetensors", pair(FLUX), about))
    assert "is a LoRA for FLUX (it says 'hunyuan-video/lora'), as" in message


def folder(place: Path, config: object, content: Tensors) -> Path:
    place.mkdir()
    text = config if isinstance(config, str) else json.dumps(config)
    (place / "adapter_config.json").write_text(text)
    write(place / "adapter_model.safetensors", content)
    return place


CONFIGS: dict[str, tuple[Any, str]] = {
    "another type": ({"peft_type": "IA3"}, "'peft_type' must be one of LORA, LOHA, LOKR, OFT"),
    "no type": ({"peft_type": None}, "not None"),
    "no JSON": ("{", "cannot be read"),
    "a list": ([], "must hold a JSON object"),
    "alpha": ({"lora_alpha": "x"}, "'lora_alpha' must be a number above 0, not 'x'"),
    "an infinite alpha": ('{"lora_alpha": Infinity}', "must be a number above 0, not inf"),
    "alphas": ({"alpha_pattern": [1]}, "'alpha_pattern' must be an object, not [1]"),
    "a pattern": ({"alpha_pattern": {"(a+)+": 1}}, "must name modules, not '(a+)+'"),
    "a start that changes the base": ({"init_lora_weights": "pissa"}, "changes the base"),
    "an exact rotation": ({"peft_type": "OFT", "use_cayley_neumann": False}, "must be true"),
    "other terms": ({"peft_type": "OFT", "num_cayley_neumann_terms": 3}, "must be 5, not 3"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(case: str, tmp_path: Path) -> None:
    """Refuse a config beside the file, and where it can be, the same in the file's header."""
    config, words = CONFIGS[case]
    content = pair(f"base_model.model.{QUERY}")
    message = refusal(folder(tmp_path / "adapter", config, content))
    assert words in message and "adapter_config.json" in message
    if isinstance(config, dict):
        inner = json.dumps({f"transformer.{name}": value for name, value in config.items()})
        metadata = {"lora_adapter_metadata": inner}
        assert words in refusal(
            write(tmp_path / "b.safetensors", pair(f"transformer.{QUERY}"), metadata)
        )


def test_a_config_of_dora_without_magnitudes(tmp_path: Path) -> None:
    place = folder(tmp_path / "adapter", {"use_dora": True}, pair(f"base_model.model.{QUERY}"))
    assert "has no lora_magnitude_vector" in refusal(place)


def test_metadata_that_is_no_json(tmp_path: Path) -> None:
    for text in ("{", "[]", "[" * 100_000):
        metadata = {"lora_adapter_metadata": text}
        file = write(tmp_path / "lora.safetensors", pair(MODULE), metadata)
        assert "the metadata 'lora_adapter_metadata' must be" in refusal(file)


def test_folders(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "must hold PEFT's adapter_config.json, which is missing" in refusal(empty)
    write(empty / "style.safetensors", pair(MODULE))
    assert "name a file in it, such as style.safetensors" in refusal(empty)
    (empty / "adapter_config.json").write_text("{}")
    (empty / "adapter_model.bin").write_bytes(b"")
    assert "must hold adapter_model.safetensors" in refusal(empty)
    assert "adapter_model.bin is a pickle, which is never loaded" in refusal(empty)


def test_the_file_in_a_folder_is_the_folder(tmp_path: Path) -> None:
    """PEFT's config has the scale: its file is never read without it."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8}
    place = folder(tmp_path / "adapter", config, pair(f"base_model.model.{QUERY}"))
    named, file = Adapter.open(place, tiny()), place / "adapter_model.safetensors"
    assert Adapter.open(file, tiny()).identity == named.identity
    change = Adapter.open(file, tiny()).changes["transformer"][QUERY]
    assert isinstance(change, Change) and isinstance(change.form, LowRank)
    assert change.form.scale == 4
    (place / "adapter_config.json").unlink()
    assert "whose adapter_config.json has its scale and is missing" in refusal(file)
    assert "adapter_config.json, which is missing; name a .safetensors file" in refusal(place)


def test_pickles_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "lora.pt").write_bytes(b"")
    assert "is a pickle by its name" in refusal(tmp_path / "lora.pt")
    (tmp_path / "renamed.safetensors").write_bytes(pickle.dumps({"a": 1}, 2))
    assert "is a pickle, which can run any program" in refusal(tmp_path / "renamed.safetensors")
    (tmp_path / "lora.gguf").write_bytes(b"GGUF" + bytes(60))
    assert "is a GGUF file" in refusal(tmp_path / "lora.gguf")
    (tmp_path / "text.safetensors").write_text("a text")
    assert "truncated or no safetensors file" in refusal(tmp_path / "text.safetensors")
    assert "no such LoRA" in refusal(tmp_path / "none.safetensors")
    for source in ("", "a\0b", 3):
        with pytest.raises(LoraError, match=r"a LoRA must be a path|no such LoRA"):
            Adapter.open(source, tiny())  # type: ignore[arg-type]


def test_headers(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    for length, text, words in (
        (1 << 40, b"{}", "truncated or no safetensors file"),
        (2, b"{}", "must hold the tensors of a LoRA"),
        (4, b"null", "the header must be a JSON object"),
        (4, b'"\xff"}', "cannot be read"),
        (100_000, b"[" * 100_000, "cannot be read"),
        (18, b'{"__metadata__":3}', "must hold the tensors"),
    ):
        file.write_bytes(struct.pack("<Q", length) + text)
        assert words in refusal(file)


def test_a_lora_is_no_checkpoint(tmp_path: Path) -> None:
    file = write(tmp_path / "lora.safetensors", pair(MODULE))
    for source in (file, folder(tmp_path / "adapter", {}, pair(MODULE)), tmp_path / "loras"):
        if not source.exists():
            source.mkdir()
            write(source / "lokr.safetensors", FULL)
        with pytest.raises(CheckpointError, match="is a LoRA, which changes a model and is none"):
            ZImage.load(source)


def test_damage(tmp_path: Path) -> None:
    """Flip and cut bytes of a valid file: it is read or refused, and nothing else happens."""
    content = pair(MODULE) | kohya("lora_unet_layers_1_attention_qkv", 2, rows=144)
    content |= tensors("layers.0.attention.to_k", {"lokr_w1": (4, 4), "lokr_w2": (12, 12)})
    content |= tensors("layers.0.attention.to_v", {"oft_R.weight": (6, 28)}, "F16")
    content |= tensors("layers.1.ffn_norm1", {"w_norm": (WIDTH,)})
    metadata = {"lora_adapter_metadata": '{"transformer.r": 2, "transformer.lora_alpha": 4}'}
    file = write(tmp_path / "lora.safetensors", content, metadata)
    valid = file.read_bytes()
    header = 8 + int.from_bytes(valid[:8], "little")
    rng = np.random.default_rng(0)
    read, messages = 0, list[str]()
    for trial in range(200):
        damaged = bytearray(valid)
        if trial % 5 == 0:
            del damaged[rng.integers(1, len(valid)) :]
        for _ in range(rng.integers(1, 4)):
            # mostly in the header: nearly every change of the numbers after it is valid
            place = rng.integers(header if trial % 4 else len(valid)) % len(damaged)
            damaged[place] = rng.choice((rng.integers(256), damaged[place] ^ 1 << rng.integers(8)))
        file.write_bytes(damaged)
        try:
            Adapter.open(file, tiny())
            read += 1
        except LoraError as error:
            messages.append(str(error))
    assert read > 20 and len(messages) > 100
    assert not [message for message in messages if "\n" in message or len(message) > 600]
