"""The file that a training run makes, as diffusers, ComfyUI and mflux read it.

A LoRA has ai-toolkit's names (`diffusion_model.` and the official module, lora_A and lora_B) and
PEFT's configuration in its metadata, with alpha equal to the rank: whoever ignores alpha is right.
A LoKr is as ai-toolkit writes it, both matrices whole, with the alpha that stands for none.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..files import write_atomically
from ..version import __version__
from .optimizer import Arrays

PREFIX = "diffusion_model."
TAILS = {"down": "lora_A.weight", "up": "lora_B.weight", "w1": "lokr_w1", "w2": "lokr_w2"}
"""The ends of keys, by the names of an adapter's arrays."""
NO_ALPHA = 1e10  # bfloat16's nearest to the 9999999999 that LyCORIS sets where there is no rank


def write(file: Path, parameters: Arrays, about: Mapping[str, str]) -> None:
    """Write trained parameters, named "PATH.ARRAY", in bfloat16, with `about` in the metadata."""
    arrays: Arrays = {}
    for name, value in parameters.items():
        path, _, array = name.rpartition(".")
        arrays[f"{PREFIX}{path}.{TAILS[array]}"] = value
        if array == "w1":
            arrays[f"{PREFIX}{path}.alpha"] = mx.array(NO_ALPHA)
    metadata = {"format": "pt", "software": f"mlx-zimage {__version__}", **about}
    ranks = {name.rpartition(".")[0]: len(v) for name, v in parameters.items() if "down" in name}
    if ranks:
        metadata["lora_adapter_metadata"] = json.dumps(_peft(ranks), sort_keys=True)
    data = _safetensors(dict(sorted(arrays.items())), metadata)
    write_atomically(file, lambda out: out.write(data), overwrite=True)


def _peft(ranks: Mapping[str, int]) -> dict[str, Any]:
    """Return PEFT's configuration of a LoRA whose layers all have one rank."""
    rank = max(ranks.values())
    return {
        "transformer.peft_type": "LORA",
        "transformer.r": rank,
        "transformer.lora_alpha": rank,
        "transformer.lora_bias": False,
        "transformer.use_dora": False,
        "transformer.use_rslora": False,
        "transformer.target_modules": sorted(ranks),
    }


def _safetensors(arrays: Arrays, metadata: Mapping[str, str]) -> bytes:
    """Return a file of arrays in bfloat16, which NumPy's writer does not know."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    pieces, end = [], 0
    for name, value in arrays.items():
        piece = np.array(value.astype(mx.bfloat16).view(mx.uint16)).tobytes()
        start, end = end, end + len(piece)
        header[name] = {"dtype": "BF16", "shape": [*value.shape], "data_offsets": [start, end]}
        pieces.append(piece)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(pieces)
