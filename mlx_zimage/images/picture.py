"""Pictures that a request brings along: read from any form into upright 8-bit sRGB."""

import base64
import binascii
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import excerpt, from_mlx, path_text, reason
from ..errors import RequestError

PictureLike = Any
"""A path, a PIL image, an array (H, W, 3 or 4) or (H, W) of bytes, a data URL, or a `Picture`."""
MAX_PIXELS = 1 << 27  # of a source: 134 million; more is taken for a decompression bomb
DATA_URL = "data:image/"


class Picture:
    """An immutable picture: (H, W, 3) bytes in sRGB, or (H, W, 4) where it has transparency."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = np.ascontiguousarray(pixels, np.uint8)
        self.pixels.flags.writeable = False

    @classmethod
    def read(cls, name: str, value: PictureLike) -> "Picture":
        """Read a picture from any of the forms; `name` is the field, for messages."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and value.startswith(DATA_URL):
            return cls(_from_file(name, io.BytesIO(_decoded(name, value)), "the data URL"))
        if isinstance(value, str | os.PathLike):
            return cls(_from_path(name, Path(os.fspath(value)).expanduser()))
        if hasattr(value, "getexif") and hasattr(value, "convert"):
            return cls(_from_image(name, value, "the image"))
        return cls(_from_array(name, value))

    @property
    def size(self) -> tuple[int, int]:
        """The width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def has_alpha(self) -> bool:
        return self.pixels.shape[2] == 4

    def to_image(self) -> Any:
        """Return a PIL image, RGB or RGBA."""
        from PIL import Image

        return Image.fromarray(self.pixels)

    def to_data_url(self) -> str:
        """Return a PNG as a data URL; `read` reverses it."""
        file = io.BytesIO()
        self.to_image().save(file, "PNG")
        return f"{DATA_URL}png;base64,{base64.b64encode(file.getvalue()).decode()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and bool(np.array_equal(self.pixels, other.pixels))

    def __hash__(self) -> int:
        return hash(self.pixels.tobytes())

    def __repr__(self) -> str:
        return f"<{self.size[0]}x{self.size[1]} {'RGBA' if self.has_alpha else 'RGB'}>"


def _decoded(name: str, url: str) -> bytes:
    header, comma, data = url.partition(",")
    if not comma or not header.endswith(";base64"):
        raise RequestError(f"{name} must be a base64 data URL, not {excerpt(url)}")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise RequestError(f"{name} holds a broken data URL: {error}") from error


def _from_path(name: str, path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return _from_file(name, io.BytesIO(file.read()), path_text(path))
    except (OSError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{name} {path_text(path)} cannot be read: {reason(error)}") from error


def _from_file(name: str, file: io.BytesIO, source: str) -> np.ndarray:
    """Decode an image file that Pillow knows."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return _from_image(name, image, source)
    except UnidentifiedImageError as error:
        raise RequestError(f"{name} {source} is no image that can be read") from error
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{name} {source} cannot be read: {reason(error)}") from error


def _from_image(name: str, image: Any, source: str) -> np.ndarray:
    """Turn a PIL image upright and into 8-bit sRGB; transparency stays."""
    from PIL import ImageOps

    width, height = image.size
    if not width or not height or width * height > MAX_PIXELS:
        raise RequestError(
            f"{name} {source} must have 1 to {MAX_PIXELS:,} pixels, not {width} x {height}"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise RequestError(f"{name} {source} is animated; extract the frame that you want")
    image.load()
    upright = ImageOps.exif_transpose(image)
    return np.asarray(_in_srgb(_in_8_bit(upright)), np.uint8)


def _in_8_bit(image: Any) -> Any:
    """Return 16-bit and floating-point greys as 8-bit ones; others as they are."""
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        numbers = np.asarray(image).astype(np.float64)
        return Image.fromarray((np.clip(numbers, 0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        numbers = np.nan_to_num(np.asarray(image, np.float64))
        scale = 255 if numbers.max() <= 1 else 1
        return Image.fromarray(np.clip(numbers * scale, 0, 255).round().astype(np.uint8))
    return image


def _in_srgb(image: Any) -> Any:
    """Return the image as RGB or RGBA, converted from its embedded colour profile if it has one."""
    from PIL import Image, ImageCms

    profile = image.info.get("icc_profile")
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    if image.mode in ("P", "PA", "LA", "RGBa", "La"):
        image = image.convert("RGBA" if has_alpha else "RGB")
    if image.mode == "RGBA":
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile of another colour space, or a broken one: the numbers as they are
    image = image.convert("RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return image
    return Image.merge("RGBA", (*image.split(), alpha))


def _from_array(name: str, value: object) -> np.ndarray:
    """Take an array of bytes, grey (H, W) or (H, W, 1), RGB or RGBA."""
    try:
        array = np.asarray(from_mlx(value))
    except (TypeError, ValueError) as error:
        raise RequestError(f"{name} must be a picture: {reason(error)}") from error
    if array.dtype.kind == "f" and array.size and array.dtype != np.uint8:
        raise RequestError(f"{name} must be an array of bytes (0 to 255), not of {array.dtype}")
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
        raise RequestError(
            f"{name} must be a path, a PIL image or an array (height, width, 3) of bytes, "
            f"not {excerpt(value)}"
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] not in (1, 3, 4):
        raise RequestError(f"{name} must have 1, 3 or 4 channels, not {array.shape[2]}")
    return array.repeat(3, axis=2) if array.shape[2] == 1 else array.copy()
