"""Files read into changes: what a file is and changes, its scales, and what has no effect."""

import hashlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import LoraError, LoraInfo, list_loras, read_lora
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.forms import Change, Hadamard, LowRank, VectorChange
from tests.make_checkpoint import KINDS, models, official_shapes
from tests.measures import as_float64, relative_error

from . import writers
from .handmade import QUERY, Tensors, kohya, numbers, opened, pair, tensors, tiny
from .stored import Stored, store, write

MODULE = f"diffusion_model.{QUERY}"


def low_rank(adapter: Adapter, path: str = QUERY, component: str = "transformer") -> LowRank:
    change = adapter.changes[component][path]
    assert isinstance(change, Change) and isinstance(change.form, LowRank)
    return change.form


@pytest.mark.parametrize(
    ("name", "family", "kinds"),
    [
        ("peft", "PEFT", ("LoRA",)),
        ("peft, folder", "PEFT", ("LoRA",)),
        ("peft, dora", "PEFT", ("DoRA",)),
        ("ai-toolkit", "ai-toolkit", ("LoRA",)),
        ("bare", "plain", ("LoRA",)),
        ("bare, default", "DiffSynth", ("LoRA",)),
        ("musubi", "kohya", ("LoRA",)),
        ("diffusion-pipe", "ComfyUI", ("LoRA",)),
        ("onetrainer, legacy", "OneTrainer", ("LoRA", "DoRA")),
        ("onetrainer, oft", "PEFT", ("OFT",)),
        ("lycoris, boft", "LyCORIS", ("BOFT",)),
        ("lycoris, dora inside", "LyCORIS", ("DoRA on LoKr", "DoRA on LoHa")),
        ("diff and set", "ComfyUI", ("full", "bias", "replacement", "norm")),
    ],
)
def test_families(name: str, family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    shapes = official_shapes(models(KINDS["tiny"])["transformer"])
    info = Adapter.open(writers.sample(name, shapes).write(tmp_path / "lora"), tiny()).info
    assert info.family == family
    assert {*info.kinds} == {*kinds} and info.kinds[0] == kinds[0]


def test_facts(tmp_path: Path) -> None:
    content = pair(MODULE) | kohya("lora_unet_layers_0_attention_qkv", 3, 6, 144)
    content = content | kohya("lora_unet_layers_1_attention_to_out_0", 1, 4)
    del content[f"{MODULE}.lora_A.weight"], content[f"{MODULE}.lora_B.weight"]
    content |= tensors("lycoris_layers_0_ffn_norm1", {"w_norm": (48,)}, "BF16")
    adapter = opened(tmp_path, content)
    info = adapter.info
    assert info.hit == {"attention": (4, 16), "norms": (1, 25)}
    assert (info.ranks, info.alphas, info.scales) == ((4, 6), (1.0, 3.0), (0.25, 0.5))
    assert info.dtypes == ("F32", "BF16") and info.skipped == ()
    assert info.sha256 == adapter.identity == hashlib.sha256(info.path.read_bytes()).hexdigest()
    assert info.size == info.path.stat().st_size
    rows = sum(form.up.nbytes for form in map(low_rank_of(adapter), "qkv"))
    assert rows == 144 * 6 * 4
    assert adapter.nbytes == 4 * (3 * 6 * 48 + 144 * 6 + 2 * 4 * 48) + 2 * 48
    assert json.loads(json.dumps(info.to_dict()))["hit"]["attention"] == {"hit": 4, "present": 16}


def low_rank_of(adapter: Adapter) -> Any:
    return lambda letter: low_rank(adapter, f"layers.0.attention.to_{letter}")


def test_a_fused_matrix_is_cut_into_its_parts(tmp_path: Path) -> None:
    content = kohya("lora_unet_layers_0_attention_qkv", 3, 6, 144)
    down, up = (
        content[f"lora_unet_layers_0_attention_qkv.lora_{n}.weight"] for n in ("down", "up")
    )
    adapter = opened(tmp_path, content)
    for number, letter in enumerate("qkv"):
        form = low_rank(adapter, f"layers.0.attention.to_{letter}")
        rows = up.values[48 * number : 48 * number + 48]
        assert (as_float64(form.up) == rows).all() and (as_float64(form.down) == down.values).all()
        assert form.scale == 0.5


def test_ranks_that_a_part_does_not_use_are_left_out(tmp_path: Path) -> None:
    name = "lora_unet_layers_0_attention_qkv"
    content = kohya(name, 6, 6, 144)
    up = content[f"{name}.lora_up.weight"].values.copy()
    for row, column in np.ndindex(3, 3):
        if row != column:
            up[48 * row : 48 * row + 48, 2 * column : 2 * column + 2] = 0
    up[96:] = 0  # one that was not trained keeps a rank
    content[f"{name}.lora_up.weight"] = store(up, "F32")
    adapter = opened(tmp_path, content)
    forms = [low_rank(adapter, f"layers.0.attention.to_{letter}") for letter in "qkv"]
    assert [form.rank for form in forms] == [2, 2, 1]
    assert (as_float64(forms[1].up) == up[48:96, 2:4]).all()
    assert not np.array(forms[2].up).any()


def test_a_loha_that_was_fused_is_of_its_own_rank_again(tmp_path: Path) -> None:
    """Three LoHas of rank 2 as one of rank 6: block-diagonal left factors, stacked right ones."""
    name, rng = "lora_unet_layers_0_attention_qkv", np.random.default_rng(0)
    mask = np.kron(np.eye(3), np.ones((48, 2)))
    factors = {}
    for part in ("w1", "w2"):
        factors[f"hada_{part}_a"] = store(mask * rng.normal(size=(144, 6)), "F32")
        factors[f"hada_{part}_b"] = store(rng.normal(size=(6, 48)), "F32")
    content = {f"{name}.{tail}": value for tail, value in factors.items()}
    changes = opened(tmp_path, {**content, f"{name}.alpha": store(3, "F32")}).changes["transformer"]
    w1_a, w1_b, w2_a, w2_b = (value.values for value in factors.values())
    expected = np.split((w1_a @ w1_b) * (w2_a @ w2_b) / 2, 3)
    for letter, delta in zip("qkv", expected, strict=True):
        change = changes[f"layers.0.attention.to_{letter}"]
        assert isinstance(change, Change) and isinstance(change.form, Hadamard)
        assert change.form.rank == 2
        merged = as_float64(change.form.merged(mx.zeros((48, 48))))
        assert relative_error(merged, delta) < 2e-7  # measured: 5.3e-8


@pytest.mark.parametrize(
    ("alpha", "scale"),
    [
        (store(3, "F32"), 1.5),
        (store(3, "F16"), 1.5),
        (store(3, "BF16"), 1.5),
        (store(3, "F64"), 1.5),
        (store(3, "I64"), 1.5),
        (store([3], "F32"), 1.5),
        (store(-1, "F32"), -0.5),
        (store(0, "F32"), 1.0),  # as kohya, LyCORIS and ai-toolkit mean it
        (None, 1.0),
    ],
)
def test_alpha(alpha: Stored | None, scale: float, tmp_path: Path) -> None:
    content = pair(MODULE)
    if alpha is not None:
        content[f"{MODULE}.alpha"] = alpha
    assert low_rank(opened(tmp_path, content)).scale == scale


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 3}, 1.5),
        ({"lora_alpha": 3, "use_rslora": True}, 3 / 2**0.5),
        ({"lora_alpha": 3, "alpha_pattern": {"to_q": 1}}, 0.5),
        ({"lora_alpha": 3, "alpha_pattern": {"attention.to_q": 1, "to_q": 8}}, 0.5),
        ({"lora_alpha": 3, "alpha_pattern": {"o_q": 1, "^attention.to_q": 1}}, 1.5),
        ({"lora_alpha": 3, "alpha_pattern": {"^layers\\.0\\.attention\\.to_q$": 1}}, 0.5),
        ({"r": 8}, 1.0),
    ],
)
def test_scales_of_peft(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    inner = {f"transformer.{name}": value for name, value in config.items()}
    metadata = {"lora_adapter_metadata": json.dumps(inner)}
    adapter = opened(tmp_path, pair(f"transformer.{QUERY}"), metadata)
    assert low_rank(adapter).scale == pytest.approx(scale, rel=1e-12)
    stored = pair(f"transformer.{QUERY}") | {f"transformer.{QUERY}.alpha": store(5, "F32")}
    assert low_rank(opened(tmp_path, stored, metadata)).scale == 2.5  # the tensor's own comes first


def test_a_folder_is_identified_by_its_config_too(tmp_path: Path) -> None:
    identities = set()
    for alpha in (1, 2):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        write(tmp_path / "adapter_model.safetensors", pair(f"base_model.model.{QUERY}"))
        identities.add(Adapter.open(tmp_path, tiny()).identity)
    assert len(identities) == 2


def test_peft_scales_whole_factors(tmp_path: Path) -> None:
    """Alone of all: elsewhere an alpha beside two whole factors has no effect."""
    content = tensors(f"base_model.model.{QUERY}", {"lokr_w1": (4, 4), "lokr_w2": (12, 12)})
    config = {"peft_type": "LOKR", "alpha": 6, "r": 8, "rank_pattern": {"to_q": 4}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    write(tmp_path / "adapter_model.safetensors", content)
    assert Adapter.open(tmp_path, tiny()).info.scales == (1.5,)
    for alpha in (np.inf, np.nan, 9984):
        key = f"base_model.model.{QUERY}.alpha"
        info = opened(tmp_path, {**content, key: store(alpha, "F16")}).info
        assert info.scales == (1.0,) and info.alphas == ()


def same_twice(change: float = 0.0) -> Tensors:
    """Return one update as fused and as split, of which the value differs by a share."""
    fused = "lora_unet_layers_0_attention_qkv"
    content = kohya(fused, 3, 6, 144)
    up = content[f"{fused}.lora_up.weight"].values
    for number, letter in enumerate("qkv"):
        module = f"lora_unet_layers_0_attention_to_{letter}"
        content[f"{module}.lora_down.weight"] = content[f"{fused}.lora_down.weight"]
        rows = up[48 * number : 48 * number + 48] * (1 + change)
        content[f"{module}.lora_up.weight"] = store(rows, "BF16")
        content[f"{module}.alpha"] = store(3, "F32")
    return content


def test_an_update_that_is_there_twice_is_taken_once(tmp_path: Path) -> None:
    adapter = opened(tmp_path, same_twice())
    assert adapter.info.hit == {"attention": (3, 16)}
    assert low_rank(adapter).up.dtype == mx.bfloat16  # of the official names
    fused = "lora_unet_layers_0_attention_qkv"
    assert adapter.skipped == (f"{fused}: the same update as lora_unet_layers_0_attention_to_v",)
    with pytest.raises(LoraError, match="twice, differently"):
        opened(tmp_path, same_twice(0.05))
    rows = numbers(144, 1).values
    parts = {"qkv": rows, "to_q": rows[:48], "to_k": rows[48:96], "to_v": rows[96:]}
    start = "lora_unet_layers_0_attention_"
    dora = {f"{start}{name}.dora_scale": store(part, "F32") for name, part in parts.items()}
    assert len(opened(tmp_path, same_twice() | dora).skipped) == 1
    whole = tensors(MODULE, {"diff": (48, 48)}) | tensors(QUERY, {"diff": (48, 48)})
    assert len(opened(tmp_path, whole).skipped) == 1
    whole[f"{QUERY}.diff"] = numbers(48, 48, seed=1)
    with pytest.raises(LoraError, match="twice, differently"):
        opened(tmp_path, whole)


def test_components_have_configs_of_their_own(tmp_path: Path) -> None:
    text = "text_encoder.model.layers.0.self_attn.o_proj"
    content = pair(f"transformer.{QUERY}") | pair(text, rows=24, columns=32)
    for config, scales in (
        ({"transformer.lora_alpha": 3, "text_encoder.lora_alpha": 1}, (1.5, 0.5)),
        ({"transformer.lora_alpha": 3}, (1.5, 1.0)),
        ({"lora_alpha": 3}, (1.5, 1.5)),
        ({"vae.lora_alpha": 3}, (1.0, 1.0)),
    ):
        adapter = opened(tmp_path, content, {"lora_adapter_metadata": json.dumps(config)})
        encoder = low_rank(adapter, "model.layers.0.self_attn.o_proj", "text_encoder")
        assert (low_rank(adapter).scale, encoder.scale) == scales


def test_text_encoders(tmp_path: Path) -> None:
    """Those of this model are changed, others are named."""
    fits = "lora_te_layers_0_self_attn_o_proj"
    content = pair(MODULE) | pair(fits, rows=24, columns=32)
    content |= pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", rows=7)
    content |= pair("text_encoders.qwen3_4b.transformer.model.layers.2.mlp.up_proj", rows=7)
    adapter = opened(tmp_path, content)
    assert low_rank(adapter, "model.layers.0.self_attn.o_proj", "text_encoder").rank == 2
    assert adapter.info.hit == {"text encoder": (1, 23), "attention": (1, 16)}
    assert adapter.skipped == (
        "lora_te1_text_model_encoder_layers_0_mlp_fc1: not in this model",
        "text_encoders.qwen3_4b.transformer.model.layers.2.mlp.up_proj: not in this model",
    )


def test_biases_and_norms(tmp_path: Path) -> None:
    content = pair(MODULE) | tensors(MODULE, {"lora_B.bias": (48,), "diff_b": (48,)})
    content[f"{MODULE}.alpha"] = store(4, "F32")
    content |= tensors("layers.1.ffn_norm1", {"set_weight": (48,)})
    changes = opened(tmp_path, content).changes["transformer"]
    query, norm = changes[QUERY], changes["layers.1.ffn_norm1"]
    assert isinstance(query, Change) and isinstance(norm, VectorChange)
    own, added = (content[f"{MODULE}.{tail}"].values for tail in ("lora_B.bias", "diff_b"))
    np.testing.assert_allclose(as_float64(query.bias), 2 * own + added, rtol=1e-6, atol=1e-9)
    assert norm.replaces


def test_eight_bits(tmp_path: Path) -> None:
    """Every finite number of e5m2 is read as it is; the others are refused."""
    codes = np.arange(256, dtype=np.uint8)
    values = (codes.astype("<u2") << 8).view("<f2").astype(np.float64)  # the upper half of float16
    finite = np.isfinite(values)
    raw = np.resize(codes[finite], (2, 48))
    content = pair(MODULE)
    key = f"{MODULE}.lora_A.weight"
    content[key] = Stored("F8_E5M2", raw.shape, raw.tobytes(), values[raw])
    assert (as_float64(low_rank(opened(tmp_path, content)).down) == values[raw]).all()
    raw[1, 3] = codes[~finite][0]
    content[key] = Stored("F8_E5M2", raw.shape, raw.tobytes(), values[raw])
    with pytest.raises(LoraError, match="infinite or NaN"):
        opened(tmp_path, content)


def test_metadata(tmp_path: Path) -> None:
    tags = json.dumps({"a": {"ohwx": 19, "blue hair": 3}, "b": {"ohwx": 1, "1girl": 18, "x": None}})
    for texts, expected in (
        ({}, {}),
        (
            {"ss_base_model_version": "zimage", "modelspec.trigger_phrase": "a  b\nc"},
            {"base_model": "zimage", "trigger_words": ("a b c",)},
        ),
        (
            {"ss_tag_frequency": tags, "ss_num_train_images": "20"},
            {"trigger_words": ("ohwx", "1girl")},
        ),
        ({"ss_tag_frequency": tags}, {}),
        (
            {"ss_tag_frequency": "{", "software": "[1]", "ss_num_train_images": "x"},
            {"program": "[1]"},
        ),
        (
            {
                "software": '{"name": "ai-toolkit", "version": "0.7"}',
                "name": "style",
                "modelspec.architecture": "Z-Image/lora",
                "modelspec.author": "Ada",
                "modelspec.description": "None",
            },
            {
                "program": "ai-toolkit 0.7",
                "title": "style",
                "base_model": "Z-Image/lora",
                "author": "Ada",
            },
        ),
    ):
        metadata = opened(tmp_path, pair(MODULE), texts).metadata
        silent = {"trigger_words": ()}
        assert {k: v for k, v in vars(metadata).items() if v is not None} == silent | expected


def test_programs(tmp_path: Path) -> None:
    """A program that names itself is the family, whatever the layout."""
    for texts, family in (
        ({"software": "mlx-zimage 1.0", "lora_adapter_metadata": "{}"}, "mlx-zimage"),
        ({"lora_adapter_metadata": "{}"}, "PEFT"),
        ({"mflux_version": "0.17"}, "mflux"),
        ({"ot_branch": "master"}, "OneTrainer"),
        ({}, "ai-toolkit"),
    ):
        assert opened(tmp_path, pair(MODULE), texts).family == family


def test_one_and_many(tmp_path: Path) -> None:
    """Files are held against the published model unless another is named."""
    wide = pair(MODULE, rows=3840, columns=3840)
    good = write(tmp_path / "good.safetensors", wide)
    write(tmp_path / "bad.safetensors", pair(MODULE))
    folder = tmp_path / "deep" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    write(folder / "adapter_model.safetensors", wide)
    (tmp_path / "deep" / "old.pt").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no LoRA")
    (tmp_path / ".hidden.safetensors").write_text("")
    listed = {path.relative_to(tmp_path).as_posix(): info for path, info in list_loras(tmp_path)}
    assert [*listed] == ["bad.safetensors", "deep/adapter", "deep/old.pt", "good.safetensors"]
    kinds = [type(info) for info in listed.values()]
    assert kinds == [LoraError, LoraInfo, LoraError, LoraInfo]
    assert read_lora(good) == listed["good.safetensors"]
    with pytest.raises(LoraError, match="must be a folder"):
        list_loras(good)
    with pytest.raises(LoraError, match="for a model of another size"):
        read_lora(good, model="demo")
