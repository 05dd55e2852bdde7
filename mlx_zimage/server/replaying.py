"""Replaying an uploaded picture: its request, and what would differ here."""

import io
from typing import Any

from .. import Lora, ZImage, replay
from .loras import LoraShelf
from .pictures import check_picture

LONGEST = 4096
"""Characters of a text in the metadata of a picture that anybody may have made."""


def uploaded(data: bytes, model: ZImage, shelf: LoraShelf) -> dict[str, Any]:
    """Return what a picture's bytes hold; one that holds no request raises a RequestError."""
    check_picture(data, "picture")
    found = replay(io.BytesIO(data))
    metadata = {name: value for name, value in found.metadata.items() if len(str(value)) <= LONGEST}
    for name in ("request", "server"):
        metadata.pop(name, None)
    return {
        "request": found.request.to_dict(),
        "index": found.index,
        "loras": [_lora(lora, shelf) for lora in found.loras],
        "differences": found.differences(model),
        "unread": list(found.unread),
        "metadata": metadata,
    }


def _lora(lora: Lora, shelf: LoraShelf) -> dict[str, Any]:
    """Return the name by which this server has a LoRA, if it does. No other folder is looked at."""
    names = [name for name in (str(lora.source), lora.name) if shelf.has(name)]
    return {"name": names[0] if names else lora.name, "scale": lora.scale, "here": bool(names)}
