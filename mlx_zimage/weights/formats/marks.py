"""ComfyUI's marks: which layers of a file are quantized, and how.

A mark is JSON with a `format`. It lies in a tensor beside the weight, `X.comfy_quant`, or with
those of other layers in the file's metadata, as `_quantization_metadata`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import CheckpointError
from ..safetensors import Entry, read_metadata

MARK = ".comfy_quant"
METADATA = "_quantization_metadata"
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")
"""Beginnings of a layer's keys that its name in the metadata may lack."""
LONGEST = 4096  # bytes of a mark


@dataclass(frozen=True)
class Mark:
    """How one layer is quantized."""

    where: str  # for messages
    fields: Mapping[str, Any]

    @property
    def kind(self) -> Any:
        return self.fields.get("format")

    def field(self, name: str, usual: Any) -> Any:
        """Return a parameter of its kind, which may lie one level deeper."""
        inner = self.fields.get("params")
        inner = inner if isinstance(inner, dict) else {}
        return self.fields.get(name, inner.get(name, usual))

    def number(self, name: str, usual: int) -> int:
        value = self.field(name, usual)
        if type(value) is not int or not 0 < value <= 1 << 20:
            raise CheckpointError(
                f"{self.where}: '{name}' must be a number from 1 on, not {value!r}"
            )
        return value


def read_marks(entries: Mapping[str, Entry]) -> dict[str, Mark]:
    """Return the marks of a file's layers, by the paths of their keys."""
    marks = dict(_in_metadata(entries))
    for key, entry in entries.items():
        if key.endswith(MARK):
            marks[key.removesuffix(MARK)] = _mark(entry.where, _text(entry))
    return marks


def _text(entry: Entry) -> bytes:
    if entry.count > LONGEST:
        raise CheckpointError(f"{entry.where} must be a short text, not {entry.count} bytes")
    return entry.raw(0, entry.shape[0] if entry.shape else 1).tobytes()


def _in_metadata(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Mark]]:
    for path in {entry.file.path for entry in entries.values()}:
        text = read_metadata(path).get(METADATA)
        if text is None:
            continue
        where = f"{path}: '{METADATA}'"
        layers = _mark(where, text).fields.get("layers")
        if not isinstance(layers, dict):
            raise CheckpointError(f"{where} must name layers, not {str(layers)[:40]!r}")
        for name, value in layers.items():
            fields = {"format": value} if isinstance(value, str) else value
            if not isinstance(fields, dict):
                raise CheckpointError(f"{where} must hold an object for layer '{name}'")
            prefix = next((p for p in PREFIXES if f"{p}{name}.weight" in entries), "")
            yield prefix + name, Mark(f"{where} of layer '{name}'", fields)


def _mark(where: str, text: str | bytes) -> Mark:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} must be JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{where} must be a JSON object, not {str(fields)[:40]!r}")
    return Mark(where, fields)
