"""Writes a checkpoint as other programs have it, from its official folder."""

import json
import re
import shutil
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


MFLUX = (
    (r"^t_embedder\.mlp\.0\.", "t_embedder.linear1."),
    (r"^t_embedder\.mlp\.2\.", "t_embedder.linear2."),
    (r"^(all_final_layer\.2-1\.adaLN_modulation)\.1\.", r"\1.0."),
    (r"^model\.", ""),
    (r"^(encoder\.conv_(?:in|out))\.", r"\1.conv2d."),
    (r"^(decoder\.conv_(?:in|out))\.", r"\1.conv."),
    (r"\.conv_norm_out\.", ".conv_norm_out.norm."),
)


def mflux(source: Path, folder: Path, bits: int | None) -> Path:
    """As mflux saves it: every matrix whose width allows it quantized, two shards, no configs."""
    for part in ("transformer", "text_encoder", "vae"):
        found: dict[str, mx.array] = {}
        for key, values in official(source, part).items():
            name, array = _renamed(key, MFLUX), mx.array(values).astype(mx.bfloat16)
            if array.ndim == 4:
                array = array.transpose(0, 2, 3, 1)
            if bits and array.ndim == 2 and array.shape[1] % 64 == 0 and "_pad_token" not in name:
                path = name.removesuffix(".weight")
                packed = mx.quantize(array, 64, bits)
                kinds = ("weight", "scales", "biases")
                found |= {f"{path}.{kind}": a for kind, a in zip(kinds, packed, strict=True)}
            else:
                found[name] = array
        if part == "text_encoder":
            found["rotary_emb.inv_freq"] = mx.ones(8)
        (folder / part).mkdir(parents=True)
        names, places = sorted(found), {}
        for number, chosen in enumerate((names[::2], names[1::2])):
            file = folder / part / f"{number}.safetensors"
            mx.save_safetensors(str(file), {key: found[key] for key in chosen})
            places |= dict.fromkeys(chosen, file.name)
        index = {"metadata": {"quantization_level": str(bits)}, "weight_map": places}
        (folder / part / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


MLX_VLM = (
    (r"^all_(x_embedder|final_layer)\.2-1\.", r"\1."),
    (r"^(final_layer\.adaLN_modulation)\.1\.", r"\1.0."),
    (r"^t_embedder\.mlp\.0\.", "t_embedder.linear1."),
    (r"^t_embedder\.mlp\.2\.", "t_embedder.linear2."),
    (r"^model\.", ""),
    (r"(\.attentions\.\d\.to_out)\.0\.", r"\1."),
)


def mlx_vlm(source: Path, folder: Path, packing: tuple[str, int, int] | None) -> Path:
    """As mlx-vlm converts it: mode, bits and group for every matrix that they fit but the VAE's."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    for part in ("transformer", "text_encoder", "vae"):
        found: dict[str, mx.array] = {}
        for key, values in official(source, part).items():
            name, array = _renamed(key, MLX_VLM), mx.array(values)
            if array.ndim == 4:
                array = array.transpose(0, 2, 3, 1)
            is_matrix = array.ndim == 2 and "pad_token" not in name and part != "vae"
            if packing and is_matrix and array.shape[1] % packing[2] == 0:
                mode, bits, group = packing
                packed = mx.quantize(array, group, bits, mode=mode)
                kinds = ("weight", "scales", "biases")[: len(packed)]
                path = name.removesuffix(".weight")
                found |= {f"{path}.{kind}": a for kind, a in zip(kinds, packed, strict=True)}
            elif not key.startswith("lm_head."):
                found[name] = array
        about = {"mlx_vlm_format": "z_image"}
        if packing and part != "vae":
            names = ("quantization_mode", "quantization_level", "quantization_group_size")
            about |= {name: str(value) for name, value in zip(names, packing, strict=True)}
        mx.save_safetensors(str(folder / part / "model.safetensors"), found)
        index = {"metadata": about, "weight_map": dict.fromkeys(found, "model.safetensors")}
        (folder / part / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def quanto(arrays: Arrays) -> Arrays:
    """Every matrix of a transformer's blocks as int8 with a scale for each row."""
    found: Arrays = {}
    for key, array in arrays.items():
        if array.ndim == 2 and key.startswith("layers."):
            scale = np.abs(array).max(1, keepdims=True) / 127
            found[f"{key}._data"] = np.round(array / scale).astype(np.int8)
            found[f"{key}._scale"] = scale
            for side in ("input", "output"):
                found[f"{key.removesuffix('.weight')}.{side}_scale"] = np.ones((), np.float32)
        else:
            found[key] = array
    return found


def replaced(source: Path, folder: Path, transformer: Arrays) -> Path:
    """An official checkpoint with other numbers in its transformer, in float32."""
    shutil.copytree(source, folder)
    for file in (folder / "transformer").glob("*.safetensors*"):
        file.unlink()
    write(folder / "transformer/diffusion_pytorch_model.safetensors", transformer)
    return folder


def write(file: Path, arrays: Arrays, prefix: str = "") -> Path:
    whole = {prefix + key: np.ascontiguousarray(array) for key, array in arrays.items()}
    save_file(whole, file)
    return file


def _renamed(key: str, rules: Rules) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key
