"""Ways to break a copy of a checkpoint."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(file.read_text("utf-8"))
    change(data)
    file.write_text(json.dumps(data), "utf-8")


def edit_header(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a safetensors header and leave the data where it is."""
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def rename_tensor(file: Path, old: str, new: str) -> None:
    edit_header(file, lambda header: header.update({new: header.pop(old)}))


def drop_tensor(file: Path, key: str) -> None:
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    del weights[key]
    mx.save_safetensors(str(file), weights)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
