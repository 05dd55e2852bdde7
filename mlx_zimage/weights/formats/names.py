"""Other programs' names for tensors, turned into the official keys.

A `Names` says how to recognise one component in a file and how to rename its tensors. The table of
components (checkpoint/components.py) refers to these.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import mlx.core as mx

from ...errors import CheckpointError
from ..tensor import Tensor, Tensors

TRANSFORMER_RULES = (
    (r"^x_embedder\.", "all_x_embedder.2-1."),
    (r"^final_layer\.", "all_final_layer.2-1."),
    (r"\.attention\.out\.", ".attention.to_out.0."),
    (r"\.attention\.([qk])_norm\.", r".attention.norm_\1."),
    (r"^extended_weights\.", ""),  # TwinFlow's second timestep embedder, in ComfyUI's nodes
    (r"^t_embedder\.linear1\.", "t_embedder.mlp.0."),  # mflux names this and the next
    (r"^t_embedder\.linear2\.", "t_embedder.mlp.2."),
    (r"^(all_final_layer\.2-1\.adaLN_modulation)\.0\.", r"\1.1."),
)
QWEN_RULES = (  # llama.cpp's names
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
VAE_RULES = (
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
    (r"\.conv_(in|out)\.conv(2d)?\.", r".conv_\1."),  # mflux names this and the next
    (r"\.conv_norm_out\.norm\.", ".conv_norm_out."),
    (r"\.attentions\.0\.to_out\.(weight|bias|scales|biases)$", r".attentions.0.to_out.0.\1"),
)
UNUSED = ("norm_final.weight", "rotary_emb.inv_freq")
"""Tensors that some files hold and no model uses."""

Renamed = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class Names:
    """How other programs name one component's tensors."""

    prefixes: tuple[str, ...]  # before each name, in a file that holds several components
    signs: tuple[str, ...]  # any of these names, without a prefix, shows the component
    official: Callable[[Tensors], Renamed]  # to the official keys


def split(tensors: Mapping[str, Tensor], names: Mapping[str, Names]) -> dict[str, Tensors]:
    """Return the components that a file holds, each under the official keys."""
    components: dict[str, Tensors] = {}
    for component, known in names.items():
        for prefix in (*known.prefixes, ""):
            inner = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            if any(sign in inner for sign in known.signs):
                components[component] = _unique(known.official(inner))
                break
    return components


def _unique(renamed: Renamed) -> Tensors:
    official: Tensors = {}
    for name, tensor in renamed:
        if name in official:
            raise CheckpointError(
                f"{official[name].where} and {tensor.where} are both named '{name}'"
            )
        official[name] = tensor
    return official


def _transformer(tensors: Tensors) -> Renamed:
    for key, tensor in tensors.items():
        name = replaced(key, TRANSFORMER_RULES)
        if name.endswith("_pad_token") and len(tensor.shape) == 1:
            yield name, _reshaped(tensor, (1, *tensor.shape))
        elif name.endswith(".attention.qkv.weight"):
            if len(tensor.shape) != 2 or tensor.shape[0] % 3:
                raise CheckpointError(
                    f"{tensor.where} must be three matrices in one, not {tensor.shape}"
                )
            rows = tensor.shape[0] // 3
            for i, which in enumerate("qkv"):
                matrix = tensor.slice(i * rows, (i + 1) * rows)
                yield name.replace("qkv", f"to_{which}"), matrix
        elif key not in UNUSED:
            yield name, tensor


def _text_encoder(tensors: Tensors) -> Renamed:
    for key, tensor in tensors.items():
        name, packing = replaced(key, QWEN_RULES), tensor.packing
        is_corrected = packing is not None and packing != packing.plain
        if "embed_tokens" in name and is_corrected:  # a table: nothing corrects what it gives
            yield name, tensor.unpacked()
        elif key not in UNUSED:
            yield name, tensor


def _vae(tensors: Tensors) -> Renamed:
    in_mlx_order = "decoder.conv_in.conv.weight" in tensors  # mflux stores (out, h, w, in)
    ups = {int(m[1]) for key in tensors if (m := re.match(r"decoder\.up\.(\d{1,3})\.", key))}
    last = max(ups, default=0)
    for key, tensor in tensors.items():
        turned = re.sub(r"\.up\.(\d{1,3})\.", lambda m: f".up.{last - int(m[1])}.", key)
        name = replaced(turned, VAE_RULES)
        if len(tensor.shape) != 4:
            yield name, tensor
        elif ".attentions." in name and tensor.shape[2:] == (1, 1):  # a matrix
            yield name, _reshaped(tensor, tensor.shape[:2])
        else:
            yield name, turned_back(tensor) if in_mlx_order else tensor


TRANSFORMER = Names(
    prefixes=("model.diffusion_model.", "diffusion_model."),
    signs=("x_embedder.weight", "all_x_embedder.2-1.weight"),
    official=_transformer,
)
TEXT_ENCODER = Names(
    prefixes=("text_encoders.qwen3_4b.transformer.", "text_encoders.qwen3_4b."),
    signs=("model.embed_tokens.weight", "embed_tokens.weight", "token_embd.weight"),
    official=_text_encoder,
)
VAE = Names(
    prefixes=("first_stage_model.", "vae."),
    signs=("decoder.conv_in.weight", "decoder.conv_in.conv.weight"),
    official=_vae,
)


def replaced(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key


def _reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a small tensor in another shape; it is read at once."""

    def rows(start: int, stop: int) -> mx.array:
        return tensor.read().reshape(shape)[start:stop]

    return replace(tensor.unpacked(), shape=shape, rows=rows)


def turned_back(tensor: Tensor) -> Tensor:
    """Return a convolution stored (out, h, w, in) as (out, in, h, w)."""
    out, h, w, channels = tensor.shape

    def rows(start: int, stop: int) -> mx.array:
        return tensor.rows(start, stop).transpose(0, 3, 1, 2)

    return replace(tensor, shape=(out, channels, h, w), rows=rows, entries=())
