"""Pictures as clients want them: other formats than the history's PNG, and base64."""

import base64
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .failures import Refusal

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


@dataclass(frozen=True)
class Encoding:
    """A picture's format; `quality` is for those that lose something."""

    format: str = "png"
    quality: int = 100

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            text = f"output_format must be {', '.join(FORMATS)}"
            raise Refusal(400, text, "invalid_value", "output_format")

    def from_png(self, png: bytes) -> bytes:
        """Return a PNG file in this format; PNG stays the same bytes."""
        if self.format == "png":
            return png
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            return self._encode(image)

    def from_preview(self, webp: bytes, size: tuple[int, int]) -> bytes:
        """Return a preview in this format, at the size of the finished picture."""
        with Image.open(io.BytesIO(webp), formats=("WEBP",)) as image:
            return self._encode(image.resize(size, Image.Resampling.BICUBIC))

    def of_preview(self, webp: bytes) -> bytes:
        """Return a preview in this format, at its own size."""
        with Image.open(io.BytesIO(webp), formats=("WEBP",)) as image:
            return self._encode(image)

    def _encode(self, image: Image.Image) -> bytes:
        file = io.BytesIO()
        options: dict[str, Any] = {} if self.format == "png" else {"quality": self.quality}
        image.convert("RGB").save(file, FORMATS[self.format], **options)
        return file.getvalue()


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
