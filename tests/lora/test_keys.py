"""Keys split into module and role, and modules found under every program's names."""

import pytest

from mlx_zimage.lora.keys import split
from mlx_zimage.lora.targets import Targets, official_targets
from tests.parity.official import key_list

from .handmade import QUERY, tiny
from .writers import comfy

PREFIXES = ["transformer.", "diffusion_model.", "model.diffusion_model.", "pipe.dit.", "unet."]
PREFIXES += ["base_model.model.", "base_model.model.transformer."]
PREFIXES += ["transformer.diffusion_model.", "base_model.model.transformer.diffusion_model."]


@pytest.fixture(scope="module")
def official() -> Targets:
    return official_targets()


@pytest.mark.parametrize(
    ("tail", "role", "adapter"),
    [
        ("lora_A.weight", "down", ""),
        ("lora_B.weight", "up", ""),
        ("lora_A.default.weight", "down", "default"),
        ("lora_B.my-style.weight", "up", "my-style"),
        ("lora_down.weight", "down", ""),
        ("lora.up.weight", "up", ""),
        ("lora_A", "down", ""),
        ("lora_B.bias", "up_bias", ""),
        ("lora_B.default.bias", "up_bias", "default"),
        ("lora_magnitude_vector", "magnitude", ""),
        ("lora_magnitude_vector.weight", "magnitude", ""),
        ("lora_magnitude_vector.default", "magnitude", "default"),
        ("lora_magnitude_vector.default.weight", "magnitude", "default"),
        ("magnitude", "magnitude", ""),
        ("dora_scale", "dora_scale", ""),
        ("alpha", "alpha", ""),
        ("lokr_w1", "lokr_w1", ""),
        ("lokr_w2_b", "lokr_w2_b", ""),
        ("hada_w1_a", "hada_w1_a", ""),
        ("oft_R.weight", "oft_R", ""),
        ("oft_R.default.weight", "oft_R", "default"),
        ("oft_R.scaled_oft", "scaled_oft", ""),
        ("a1.weight", "a1", ""),
        ("diff_b", "diff_b", ""),
        ("w_norm", "w_norm", ""),
    ],
)
def test_tails(tail: str, role: str, adapter: str) -> None:
    for module in (f"transformer.{QUERY}", "lora_unet_layers_0_attention_to_q"):
        key = split(f"{module}.{tail}")
        assert key is not None and (key.module, key.role, key.adapter) == (module, role, adapter)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "alpha",
        ".alpha",
        f"{QUERY}.weight",
        f"{QUERY}.bias",
        f"{QUERY}.lora_A.bias",
        "a.b.lora_C",
    ],
)
def test_no_tails(key: str) -> None:
    assert split(key) is None


def test_official_modules(official: Targets) -> None:
    """The published checkpoint's keys: 276 matrices, 205 norms."""
    for component in ("transformer", "text_encoder"):
        shapes = key_list(component)
        for path, target in official.modules[component].items():
            assert target.shape == tuple(shapes[f"{path}.weight"])
    counts = official.counts
    assert counts == {
        "text encoder": 35 * 11,
        "attention": 34 * 4,
        "feed forward": 34 * 3,
        "modulation": 33,
        "norms": 34 * 6 + 1,
        "embedders": 5,
    }
    matrices = [t for t in official.modules["transformer"].values() if len(t.shape) == 2]
    linears = [k for k, s in key_list("transformer").items() if len(s) == 2 and "pad" not in k]
    assert len(matrices) == len(linears) == 276


def test_every_module_is_found_by_every_name(official: Targets) -> None:
    for path, target in official.modules["transformer"].items():
        flat = path.replace(".", "_")
        names = [path, *(f"{prefix}{path}" for prefix in PREFIXES)]
        names += [f"{start}{flat}" for start in ("lora_unet_", "lora_unet__", "lora_transformer_")]
        for name in names:
            named = official.find(name)
            assert named is not None and named.targets == (target,) and named.is_official, name
            assert name.removeprefix(named.prefix) in (path, flat)


def test_names_of_comfy(official: Targets) -> None:
    for name, path in (
        ("layers.3.attention.out", "layers.3.attention.to_out.0"),
        ("noise_refiner.1.attention.q_norm", "noise_refiner.1.attention.norm_q"),
        ("x_embedder", "all_x_embedder.2-1"),
        ("final_layer.linear", "all_final_layer.2-1.linear"),
        ("final_layer.adaLN_modulation.1", "all_final_layer.2-1.adaLN_modulation.1"),
    ):
        for text in (f"diffusion_model.{name}", f"lora_unet_{name.replace('.', '_')}"):
            named = official.find(text)
            assert named is not None and [t.path for t in named.targets] == [path]
            assert not named.is_official
    named = official.find("lora_unet_context_refiner_1_attention_qkv")
    assert named is not None
    paths = [f"context_refiner.1.attention.to_{letter}" for letter in "qkv"]
    assert [target.path for target in named.targets] == paths


def test_every_module_is_found_by_the_names_of_comfy(official: Targets) -> None:
    """No two names become the same where dots become underscores."""
    for path, target in official.modules["transformer"].items():
        for name in (
            f"diffusion_model.{comfy(path)}",
            f"lora_unet_{comfy(path).replace('.', '_')}",
        ):
            named = official.find(name)
            assert named is not None and named.targets == (target,), name


def test_a_text_encoder(official: Targets) -> None:
    path = "model.layers.34.self_attn.q_proj"
    for name in (
        "lora_te_layers_34_self_attn_q_proj",
        "lora_te1_model_layers_34_self_attn_q_proj",
        "text_encoders.qwen3_4b.transformer.model.layers.34.self_attn.q_proj",
        "text_encoder.model.layers.34.self_attn.q_proj",
    ):
        named = official.find(name)
        assert named is not None and [t.path for t in named.targets] == [path]
        assert named.targets[0].component == "text_encoder"
    assert official.find(path) is None  # without a prefix, a name is of the transformer
    assert official.find("lora_te_layers_35_self_attn_q_proj") is None  # a layer that is not run


@pytest.mark.parametrize(
    "name", ["", "layers", "transformer.", "layers.0.attention", "x_pad_token"]
)
def test_other_names(name: str) -> None:
    assert tiny().find(name) is None
