"""Write a checkpoint of random weights in the official folder layout.

    python tests/make_checkpoint.py OUT [--kind small]

The weights are drawn from a seed and each tensor's key, by a generator whose words every version of
NumPy agrees on, so that every machine writes the same ones. The pictures they make are abstract.
diffusers loads the folder as it lies there.
"""

import argparse
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from mlx_zimage.models.autoencoder import Autoencoder, AutoencoderConfig
from mlx_zimage.models.text_encoder import TextEncoder, TextEncoderConfig
from mlx_zimage.models.transformer import ZImageTransformer
from mlx_zimage.models.transformer_config import TransformerConfig
from mlx_zimage.prompt.template import CHAT_TEMPLATE
from mlx_zimage.prompt.tokenizer import byte_level, default_added_tokens

MERGES = ("t h", "th e", "i n", "e r", "o n", "r e", "re d", "c i", "l e", "Ġ a", "Ġ the", "ä ¸")


@dataclass(frozen=True)
class Kind:
    """What one random checkpoint looks like."""

    transformer: dict[str, Any]
    text_encoder: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any] = field(default_factory=lambda: {"shift": 3.0})
    prefixed: bool = True  # the text encoder's keys start with `model.`, as the official ones do
    shards: int = 1  # files a part is split into


def _transformer(
    dim: int, heads: int, axes: list[int], caption: int, **more: Any
) -> dict[str, Any]:
    return {
        "all_patch_size": [2],
        "all_f_patch_size": [1],
        "in_channels": 16,
        "dim": dim,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": heads,
        "n_kv_heads": heads,
        "norm_eps": 1e-5,
        "qk_norm": True,
        "cap_feat_dim": caption,
        "rope_theta": 256.0,
        "t_scale": 1000.0,
        "axes_dims": axes,
        "axes_lens": [1536, 512, 512],
        **more,
    }


def _text_encoder(width: int, heads: int, kv_heads: int, **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": width,
        "num_hidden_layers": 3,
        "intermediate_size": 3 * width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 16,
        "vocab_size": 320,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "attention_bias": False,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        **more,
    }


def _vae(channels: list[int], **more: Any) -> dict[str, Any]:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 16,
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "act_fn": "silu",
        "mid_block_add_attention": True,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "sample_size": 64,
        **more,
    }


KINDS = {
    # Four VAE blocks as the real one has; the official traits: shards, an index, the prefix.
    "small": Kind(
        _transformer(96, 3, [8, 12, 12], 48, n_layers=3, n_refiner_layers=2),
        _text_encoder(48, 4, 2),
        _vae([16, 16, 32, 32]),
        shards=3,
    ),
    # The shape of diffusers' own tests: two VAE blocks (2 pixels a latent), quant convolutions.
    "diffusers": Kind(
        _transformer(32, 2, [8, 4, 4], 16),
        _text_encoder(16, 2, 2, num_hidden_layers=2),
        _vae([32, 64], norm_num_groups=32, use_quant_conv=True, use_post_quant_conv=True),
        {"shift": 6.0},
        prefixed=False,
    ),
    # Wider than the timestep embedding, no q/k norm, three VAE blocks, a dynamic shift.
    "wide": Kind(
        _transformer(320, 4, [16, 32, 32], 64, qk_norm=False, norm_eps=1e-6, n_layers=1),
        _text_encoder(64, 4, 1, rope_theta=10000.0, tie_word_embeddings=False),
        _vae(
            [16, 32, 32],
            layers_per_block=2,
            mid_block_add_attention=False,
            scaling_factor=0.5,
            shift_factor=0.05,
        ),
        {"use_dynamic_shifting": True, "shift": 3.0},
    ),
    # Every matrix a multiple of 64 wide, as the real ones are, so that all quantizations apply.
    "even": Kind(
        _transformer(192, 3, [16, 24, 24], 64),
        _text_encoder(64, 4, 4),
        _vae([16, 16, 32, 32]),
    ),
    # As small as every kind of LoRA can be for: widths with many divisors.
    "tiny": Kind(
        _transformer(48, 3, [4, 6, 6], 24),
        _text_encoder(24, 2, 2, num_hidden_layers=2),
        _vae([16, 16]),
    ),
    # Every matrix of the blocks in tiles of 128 x 128, as nunchaku's and ConvRot's files have them.
    "tiled": Kind(
        _transformer(384, 3, [32, 48, 48], 64, n_layers=1),
        _text_encoder(64, 4, 4),
        _vae([16, 16, 32, 32]),
    ),
    # The real widths, with few layers: 4.4 GB.
    "full-width": Kind(
        _transformer(3840, 30, [32, 48, 48], 2560),
        _text_encoder(2560, 32, 8, head_dim=128, intermediate_size=9728),
        _vae([128, 256, 512, 512], layers_per_block=2, norm_num_groups=32, sample_size=1024),
    ),
}


def models(kind: Kind) -> dict[str, nn.Module]:
    """Our modules, whole, for their keys and shapes; nothing in them is evaluated."""
    encoder = TextEncoderConfig.from_dict(kind.text_encoder)
    return {
        "transformer": ZImageTransformer(TransformerConfig.from_dict(kind.transformer)),
        "text_encoder": TextEncoder(encoder, with_head=True),
        "vae": Autoencoder(AutoencoderConfig.from_dict(kind.vae)),
    }


def official_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Keys and shapes as files hold them: convolutions are (out, in, h, w)."""
    shapes = {key: tuple(value.shape) for key, value in tree_flatten(model.parameters())}
    return {
        key: (s[0], s[3], s[1], s[2]) if len(s) == 4 else s for key, s in sorted(shapes.items())
    }


def random_tensor(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Uniform, with the deviation that keeps activations near 1; norms lie around 1."""
    count = int(np.prod(shape))
    generator = np.random.PCG64([seed, zlib.crc32(key.encode())])
    words = generator.random_raw((count + 1) // 2).astype("<u8").view("<u4")[:count]
    unit = (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - np.float32(1)
    unit *= np.float32(3**0.5)  # deviation 1
    if len(shape) > 1 and "pad_token" not in key and "embed_tokens" not in key:
        unit *= np.float32(np.prod(shape[1:]) ** -0.5)
    elif key.endswith("bias"):
        unit *= np.float32(0.1)
    elif len(shape) == 1:
        unit = np.float32(1) + np.float32(0.1) * unit
    return unit.reshape(shape)


def random_tensors(
    shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> Iterator[tuple[str, np.ndarray]]:
    for key, shape in shapes.items():
        yield key, random_tensor(key, shape, seed)


def write_checkpoint(out: Path, kind: Kind, seed: int = 0) -> Path:
    stems = {"text_encoder": "model"}
    for part, model in models(kind).items():
        folder = out / part
        folder.mkdir(parents=True)
        shapes = official_shapes(model)
        dtype = mx.bfloat16 if part == "text_encoder" else mx.float32
        stem = stems.get(part, "diffusion_pytorch_model")
        bare = part == "text_encoder" and not kind.prefixed
        _write_weights(folder, stem, shapes, seed, dtype, kind.shards, bare)
    classes = {
        "transformer": "ZImageTransformer2DModel",
        "vae": "AutoencoderKL",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }
    encoder = "Qwen3ForCausalLM" if kind.prefixed else "Qwen3Model"
    _write(
        out / "transformer/config.json", {"_class_name": classes["transformer"]}, kind.transformer
    )
    _write(out / "vae/config.json", {"_class_name": classes["vae"]}, kind.vae)
    _write(out / "text_encoder/config.json", kind.text_encoder, {"architectures": [encoder]})
    scheduler = {"_class_name": classes["scheduler"], "num_train_timesteps": 1000}
    _write(out / "scheduler/scheduler_config.json", scheduler, kind.scheduler)
    _write(
        out / "model_index.json",
        {"_class_name": "ZImagePipeline", "text_encoder": ["transformers", encoder]},
        {part: ["diffusers", name] for part, name in classes.items()},
        {"tokenizer": ["transformers", "Qwen2Tokenizer"]},
    )
    write_tokenizer(out / "tokenizer")
    return out


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE with a few merges, Qwen2's pre-tokenizer and added tokens."""
    from tokenizers import pre_tokenizers
    from tokenizers.models import BPE

    merges = [tuple(merge.split(" ")) for merge in MERGES]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = byte_level(BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.add_tokens(default_added_tokens())
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "Qwen2Tokenizer", "chat_template": CHAT_TEMPLATE},
        {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "model_max_length": 131072},
    )


def _write_weights(
    folder: Path,
    stem: str,
    shapes: dict[str, tuple[int, ...]],
    seed: int,
    dtype: mx.Dtype,
    shards: int,
    bare: bool,
) -> None:
    keys = list(shapes)
    places: dict[str, str] = {}
    for i in range(shards):
        name = f"{stem}.safetensors"
        if shards > 1:
            name = f"{stem}-{i + 1:05}-of-{shards:05}.safetensors"
        mine = keys[i * len(keys) // shards : (i + 1) * len(keys) // shards]
        named = {key: key.removeprefix("model.") if bare else key for key in mine}
        arrays = {
            named[key]: mx.array(array).astype(dtype)
            for key, array in random_tensors({key: shapes[key] for key in mine}, seed)
        }
        mx.save_safetensors(str(folder / name), arrays, metadata={"format": "pt"})
        places |= dict.fromkeys(arrays, name)
    if shards > 1:
        total = sum(int(np.prod(shape)) for shape in shapes.values()) * dtype.size
        index = {"metadata": {"total_size": total}, "weight_map": places}
        _write(folder / f"{stem}.safetensors.index.json", index)


def _write(file: Path, *parts: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    merged: dict[str, Any] = {}
    for part in parts:
        merged |= part
    file.write_text(json.dumps(merged, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="small")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists already; name another folder")
    write_checkpoint(options.out, KINDS[options.kind], options.seed)


if __name__ == "__main__":
    main()
