"""From the names of other programs to the official keys."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import mlx.core as mx

from ...errors import CheckpointError
from ..tensor import Part, Tensor

PREFIXES: dict[Part, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.", "diffusion_model."),
    "text_encoder": ("text_encoders.qwen3_4b.transformer.", "text_encoders.qwen3_4b."),
    "vae": ("first_stage_model.", "vae."),
}
SIGNS: dict[Part, tuple[str, ...]] = {
    "transformer": ("x_embedder.weight", "all_x_embedder.2-1.weight"),
    "text_encoder": ("model.embed_tokens.weight", "embed_tokens.weight", "token_embd.weight"),
    "vae": ("decoder.conv_in.weight", "decoder.conv_in.conv.weight"),
}
"""A key by which a part is known, once its prefix is gone."""

TRANSFORMER = (
    (r"^x_embedder\.", "all_x_embedder.2-1."),
    (r"^final_layer\.", "all_final_layer.2-1."),
    (r"\.attention\.out\.", ".attention.to_out.0."),
    (r"\.attention\.([qk])_norm\.", r".attention.norm_\1."),
    (r"^t_embedder\.linear1\.", "t_embedder.mlp.0."),  # mflux, as the next
    (r"^t_embedder\.linear2\.", "t_embedder.mlp.2."),
    (r"^(all_final_layer\.2-1\.adaLN_modulation)\.0\.", r"\1.1."),
)
QWEN = (  # llama.cpp's names
    (r"^token_embd\.", "model.embed_tokens."),
    (r"^output_norm\.", "model.norm."),
    (r"^output\.", "lm_head."),
    (r"^blk\.(\d+)\.attn_norm\.", r"model.layers.\1.input_layernorm."),
    (r"^blk\.(\d+)\.ffn_norm\.", r"model.layers.\1.post_attention_layernorm."),
    (r"^blk\.(\d+)\.attn_([qkv])\.", r"model.layers.\1.self_attn.\2_proj."),
    (r"^blk\.(\d+)\.attn_output\.", r"model.layers.\1.self_attn.o_proj."),
    (r"^blk\.(\d+)\.attn_([qk])_norm\.", r"model.layers.\1.self_attn.\2_norm."),
    (r"^blk\.(\d+)\.ffn_(gate|up|down)\.", r"model.layers.\1.mlp.\2_proj."),
    (r"^(embed_tokens|layers|norm)\.", r"model.\1."),
)
VAE = (
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.block\.", r".up_blocks.\1.resnets."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
    (r"\.conv_(in|out)\.conv(2d)?\.", r".conv_\1."),  # mflux, as the next
    (r"\.conv_norm_out\.norm\.", ".conv_norm_out."),
)
IGNORED = ("norm_final.weight", "rotary_emb.inv_freq")  # in some files, and used by nothing

Tensors = dict[str, Tensor]
Named = Iterator[tuple[str, Tensor]]


def parts(found: Mapping[str, Tensor]) -> dict[Part, Tensors]:
    """What a single file holds, under the official keys."""
    split: dict[Part, Tensors] = {}
    for part, prefixes in PREFIXES.items():
        for prefix in (*prefixes, ""):
            inner = {k.removeprefix(prefix): t for k, t in found.items() if k.startswith(prefix)}
            if any(sign in inner for sign in SIGNS[part]):
                split[part] = _once_each(RENAMED[part](inner))
                break
    return split


def _once_each(named: Named) -> Tensors:
    official: Tensors = {}
    for name, tensor in named:
        if name in official:
            raise CheckpointError(f"{official[name].where} and {tensor.where} are both '{name}'")
        official[name] = tensor
    return official


def _transformer(found: Tensors) -> Named:
    for key, tensor in found.items():
        name = _replaced(key, TRANSFORMER)
        if name.endswith("_pad_token") and len(tensor.shape) == 1:
            yield name, _reshaped(tensor, (1, *tensor.shape))
        elif name.endswith(".attention.qkv.weight"):
            if len(tensor.shape) != 2 or tensor.shape[0] % 3:
                raise CheckpointError(f"{tensor.where} must be three matrices, not {tensor.shape}")
            rows = tensor.shape[0] // 3
            for i, which in enumerate("qkv"):
                part = tensor.slice(i * rows, (i + 1) * rows)
                yield name.replace("qkv", f"to_{which}"), part
        elif key not in IGNORED:
            yield name, tensor


def _text_encoder(found: Tensors) -> Named:
    for key, tensor in found.items():
        if key not in IGNORED:
            yield _replaced(key, QWEN), tensor


def _vae(found: Tensors) -> Named:
    in_mlx_order = "decoder.conv_in.conv.weight" in found  # mflux has them as MLX does
    ups = {int(m[1]) for key in found if (m := re.match(r"decoder\.up\.(\d{1,3})\.", key))}
    last = max(ups, default=0)
    for key, tensor in found.items():
        turned = re.sub(r"\.up\.(\d{1,3})\.", lambda m: f".up.{last - int(m[1])}.", key)
        name = _replaced(turned, VAE)
        if len(tensor.shape) != 4:
            yield name, tensor
        elif ".attentions." in name and tensor.shape[2:] == (1, 1):  # a matrix
            yield name, _reshaped(tensor, tensor.shape[:2])
        else:
            yield name, _turned_back(tensor) if in_mlx_order else tensor


RENAMED: dict[Part, Callable[[Tensors], Named]] = {
    "transformer": _transformer,
    "text_encoder": _text_encoder,
    "vae": _vae,
}


def _replaced(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key


def _reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same numbers; of small tensors only, which are read whole."""

    def rows(start: int, stop: int) -> mx.array:
        return tensor.read().reshape(shape)[start:stop]

    return replace(tensor, shape=shape, rows=rows, packing=None, packed_rows=None)


def _turned_back(tensor: Tensor) -> Tensor:
    """A convolution (out, h, w, in) as (out, in, h, w)."""
    out, h, w, channels = tensor.shape

    def rows(start: int, stop: int) -> mx.array:
        return tensor.rows(start, stop).transpose(0, 3, 1, 2)

    return replace(tensor, shape=(out, channels, h, w), rows=rows)
