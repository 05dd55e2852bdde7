"""Writes a checkpoint as other programs have it, from its official folder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

Arrays = dict[str, np.ndarray]
BACK = (
    (r"^all_(x_embedder|final_layer)\.2-1\.", r"\1."),
    (r"\.attention\.to_out\.0\.", ".attention.out."),
    (r"\.attention\.norm_([qk])\.", r".attention.\1_norm."),
)
VAE_BACK = (
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda m: f".mid.block_{int(m[1]) + 1}."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d)\.resnets\.", lambda m: f".up.{3 - int(m[1])}.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f".up.{3 - int(m[1])}.upsample."),
)
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def official(folder: Path, part: str) -> Arrays:
    arrays: Arrays = {}
    for file in sorted((folder / part).glob("*.safetensors")):
        loaded: Any = mx.load(str(file))  # NumPy has no bfloat16
        arrays |= {key: np.array(array.astype(mx.float32)) for key, array in loaded.items()}
    return arrays


def transformer(folder: Path) -> Arrays:
    """Fused attention and the names of the original code, with a tensor that nothing uses."""
    arrays = official(folder, "transformer")
    found: Arrays = {"norm_final.weight": np.ones(4, np.float32)}
    for key, array in arrays.items():
        if ".attention.to_q." in key:
            three = [arrays[key.replace("to_q", f"to_{which}")] for which in "qkv"]
            found[key.replace("to_q", "qkv")] = np.concatenate(three)
        elif ".attention.to_k." not in key and ".attention.to_v." not in key:
            found[_renamed(key, BACK)] = array
    return found


def vae(folder: Path) -> Arrays:
    found: Arrays = {}
    for key, array in official(folder, "vae").items():
        name = _renamed(key, VAE_BACK)
        is_matrix = ".mid.attn_1." in name and array.ndim == 2
        found[name] = array[:, :, None, None] if is_matrix else array
    return found


def text_encoder(folder: Path) -> Arrays:
    return official(folder, "text_encoder")


def write(file: Path, arrays: Arrays, prefix: str = "") -> Path:
    whole = {prefix + key: np.ascontiguousarray(array) for key, array in arrays.items()}
    save_file(whole, file)
    return file


def _renamed(key: str, rules: Rules) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key
