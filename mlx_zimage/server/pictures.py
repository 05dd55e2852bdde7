"""Pictures that clients send, judged by their first bytes before anything is decoded."""

import base64
import binascii
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from .failures import Refusal

MAX_PIXELS = 64_000_000
MAX_SIDE = 16_384
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
PICTURES = ("image", "mask", "references")
"""Fields of a request that hold pictures."""
DATA_URL = "data:"


def check_picture(data: bytes, name: str) -> None:
    """Refuse what is no single picture of a known format and a sensible size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)  # reads the header alone
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        text = f"{name} must be a whole PNG, JPEG, WebP or AVIF picture"
        raise Refusal(400, text, "invalid_image", name) from error
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise _too_large(name)
    if getattr(image, "n_frames", 1) > 1:
        raise Refusal(400, f"{name} must be one picture, not several", "invalid_image", name)


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse a request whose pictures are no data URLs: a path would be read on this machine."""
    for name in PICTURES:
        for value in _each(fields.get(name)):
            check_picture(from_data_url(value, name), name)


def from_data_url(value: Any, name: str) -> bytes:
    """Return the bytes that a data URL holds."""
    if not isinstance(value, str) or not value.startswith(DATA_URL):
        text = f"{name} must be a picture as a data URL: data:image/png;base64,..."
        raise Refusal(400, text, "invalid_image", name)
    return from_base64(value, name)


def from_base64(value: Any, name: str) -> bytes:
    """Return the bytes of a text in base64, with or without a data URL's head."""
    if not isinstance(value, str):
        raise Refusal(400, f"{name} must be a picture in base64", "invalid_image", name)
    header, comma, data = value.partition(",") if value.startswith(DATA_URL) else ("", "", value)
    if comma and not header.endswith(";base64"):
        raise Refusal(400, f"{name} must be a data URL in base64", "invalid_image", name)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"{name} holds broken base64", "invalid_image", name) from error


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif value is not None:
        yield value


def _too_large(name: str) -> Refusal:
    text = f"{name} may have at most {MAX_PIXELS:,} pixels, and {MAX_SIDE:,} on a side"
    return Refusal(400, text, "image_too_large", name)
