"""mlx-vlm's folders: the official layout with names and an order of its own.

The metadata of a component's index says `mlx_vlm_format`, and how its matrices are quantized.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import read_json
from ..index import index_of
from ..official import from_entries
from ..safetensors import Entry
from ..tensor import Tensors
from .names import Names, turned_back

FORMAT, Z_IMAGE = "mlx_vlm_format", "z_image"
QUANTIZATION = {
    "quantization_level": "bits",
    "quantization_group_size": "group_size",
    "quantization_mode": "mode",
}
"""The metadata's words, and the words of a config's block for them."""


def vlm_metadata(folder: Path) -> Mapping[str, Any] | None:
    """Return the metadata of a component's index where it is mlx-vlm's."""
    index = index_of(folder)
    metadata = read_json(index).get("metadata") if index else None
    is_vlm = isinstance(metadata, Mapping) and metadata.get(FORMAT) == Z_IMAGE
    return metadata if is_vlm else None


def read_vlm(
    entries: Mapping[str, Entry],
    metadata: Mapping[str, Any],
    config: Mapping[str, Any],
    names: Names | None,
) -> Tensors:
    """Return a component's tensors, under the official names."""
    block = {name: metadata[key] for key, name in QUANTIZATION.items() if key in metadata}
    numbers = {k: int(v) if isinstance(v, str) and v.isdecimal() else v for k, v in block.items()}
    held = config if "quantization" in config else {"quantization": numbers}
    tensors = {
        key: turned_back(tensor) if len(tensor.shape) == 4 else tensor
        for key, tensor in from_entries(entries, held).items()
    }
    return tensors if names is None else dict(names.official(tensors))
