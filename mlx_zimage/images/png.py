"""PNG files that hold the request that made them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..errors import RequestError
from ..files import write_atomically

KEY = "mlx_zimage"
"""The text chunk that holds the JSON."""


def save_png(
    image: Image.Image, path: str | Path, metadata: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Whole or not at all, and never over a file unless `overwrite`."""
    text = PngInfo()
    # Not compressed: readers refuse a text that unpacks to more than a megabyte, and arrays are.
    text.add_itxt(KEY, json.dumps(metadata, ensure_ascii=False))
    write_atomically(
        Path(path), lambda file: image.save(file, "PNG", pnginfo=text), overwrite=overwrite
    )


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_png` put into the file; `Request.from_dict` takes its "request"."""
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(KEY)
        data = json.loads(text) if text is not None else None
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as a picture: {error}") from error
    if not isinstance(data, dict):
        raise RequestError(f"{path} holds no request: it was not written by mlx_zimage")
    return data
