"""mflux's quantized matrices: packed as MLX packs them, always in groups of 64."""

from collections.abc import Mapping
from typing import Any

from ..official import from_entries
from ..safetensors import Entry
from ..tensor import Tensors

GROUP = 64


def is_packed(entries: Mapping[str, Entry]) -> bool:
    return any(key.endswith(".scales") for key in entries)


def read_mflux(entries: Mapping[str, Entry]) -> Tensors:
    return from_entries(entries, {"quantization": _block(entries)})


def _block(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Return the packing that the shapes imply: the files' metadata for it is easily lost."""
    for key, scales in entries.items():
        weight = entries.get(f"{key.removesuffix('.scales')}.weight")
        if key.endswith(".scales") and weight is not None and len(weight.shape) == 2:
            words = weight.shape[1] // max(scales.shape[-1] if scales.shape else 1, 1)  # a group
            return {"bits": words * 32 // GROUP, "group_size": GROUP}
    return {}
