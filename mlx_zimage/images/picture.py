"""Pictures that a request brings along: read from any form into upright 8-bit sRGB."""

import base64
import binascii
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import excerpt, from_mlx, path_text, reason
from ..errors import RequestError

PictureLike = Any
"""A path, a PIL image, an array (H, W, 3 or 4) or (H, W) of bytes, a data URL, or a `Picture`."""
MAX_PIXELS = 1 << 27  # of a source, 134 million; more is taken for a decompression bomb
MAX_BYTES = 1 << 30  # of a source's file
DATA_URL = "data:"
LAYERED = ("MPO", "PSD")
"""Formats whose first frame is the picture: a phone's depth map or a layer are no animation."""
HEIF = b"heic", b"heix", b"hevc", b"mif1", b"msf1"


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
            return cls(_from_bytes(name, _decoded(name, value), "the data URL"))
        if isinstance(value, str | os.PathLike):
            path = os.fspath(value)
            return cls(_from_bytes(name, _read(name, path), path_text(path)))
        if hasattr(value, "getexif") and hasattr(value, "convert"):
            return cls(_decode(name, lambda: value, "the image"))
        return cls(_from_array(name, value))

    @property
    def size(self) -> tuple[int, int]:
        """The width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def has_alpha(self) -> bool:
        return bool(self.pixels.shape[2] == 4)

    def to_image(self) -> Any:
        """Return a PIL image, RGB or RGBA."""
        from PIL import Image

        return Image.fromarray(self.pixels)

    def to_data_url(self) -> str:
        """Return a PNG as a data URL; `read` reverses it."""
        return self._data_url

    @cached_property
    def _data_url(self) -> str:
        file = io.BytesIO()
        self.to_image().save(file, "PNG")
        return f"{DATA_URL}image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and bool(np.array_equal(self.pixels, other.pixels))

    def __hash__(self) -> int:
        return hash((self.pixels.shape, self.pixels.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:  # pixels are read-only after pickling as well
        return Picture, (self.pixels,)

    def __repr__(self) -> str:
        return f"<{self.size[0]}x{self.size[1]} {'RGBA' if self.has_alpha else 'RGB'}>"


def _decoded(name: str, url: str) -> bytes:
    header, comma, data = url.partition(",")
    if not comma or not header.endswith(";base64"):
        raise RequestError(f"{name} must be a base64 data URL of a picture, not {excerpt(url)}")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{name} holds a broken data URL: {reason(error)}") from error


def _read(name: str, path: str | bytes) -> bytes:
    """Return the bytes of a regular file."""
    if not isinstance(path, str) or not path:
        raise RequestError(f"{name} must be a path, not {excerpt(path)}")
    try:
        with open(Path(path).expanduser(), "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RequestError(f"{name} {path_text(path)} is no regular file")
            if status.st_size > MAX_BYTES:
                raise RequestError(
                    f"{name} {path_text(path)} may be at most {MAX_BYTES:,} bytes, "
                    f"not {status.st_size:,}"
                )
            return file.read(MAX_BYTES)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{name} {path_text(path)} cannot be read: {reason(error)}") from error


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes into does not hold it up."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _from_bytes(name: str, data: bytes, source: str) -> np.ndarray:
    """Decode an image file that Pillow knows."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise RequestError(f"{name} {source} is empty")
    try:
        return _decode(name, lambda: Image.open(io.BytesIO(data)), source)
    except RequestError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            hint = "; convert a HEIC picture to JPEG or PNG" if data[8:12] in HEIF else ""
            raise RequestError(f"{name} {source} is no picture that can be read{hint}") from error
        raise


_quiet = threading.Lock()


def _decode(name: str, opened: Callable[[], Any], source: str) -> np.ndarray:
    """Return an image's pixels. Each failure is one line, and Pillow's warnings are not shown."""
    from PIL import Image

    from .srgb import to_srgb

    try:
        # Filters of warnings belong to the process, so that threads must take turns.
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = opened()
            _check(name, image, source)
            return to_srgb(image)
    except RequestError:
        raise
    except Image.DecompressionBombError as error:
        raise RequestError(f"{name} {source} must have at most {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise RequestError(f"{name} {source} cannot be read: {reason(error)}") from error


def _check(name: str, image: Any, source: str) -> None:
    width, height = image.size
    if not width or not height or width * height > MAX_PIXELS:
        raise RequestError(
            f"{name} {source} must have 1 to {MAX_PIXELS:,} pixels, not {width} x {height}"
        )
    frames = 1 if image.format in LAYERED else getattr(image, "n_frames", 1)
    if frames > 1:
        raise RequestError(
            f"{name} {source} has {frames} frames or pages; save the one that you want as a picture"
        )


def _from_array(name: str, value: object) -> np.ndarray:
    """Take an array of bytes, grey (H, W) or (H, W, 1), RGB or RGBA; or of truth values."""
    try:
        array = np.asarray(
            value if "uint8" in str(getattr(value, "dtype", "")) else from_mlx(value)
        )
    except Exception as error:  # of another library, or nested lists of unequal lengths
        raise RequestError(f"{name} must be a picture: {reason(error)}") from error
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim not in (2, 3) or array.dtype.kind not in "iufc":
        raise RequestError(
            f"{name} must be a path, a PIL image or an array (height, width, 3) of bytes, "
            f"not {excerpt(value)}"
        )
    if array.dtype != np.uint8:
        raise RequestError(f"{name} must be an array of bytes (0 to 255), not of {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    height, width, channels = array.shape
    if channels not in (1, 3, 4):
        raise RequestError(f"{name} must have 1, 3 or 4 channels, not {channels}")
    if not 1 <= width * height <= MAX_PIXELS:
        raise RequestError(f"{name} must have 1 to {MAX_PIXELS:,} pixels, not {width} x {height}")
    if channels == 4 and array[..., 3].min() == 255:
        return array[..., :3].copy()
    return array.repeat(3, axis=2) if channels == 1 else array.copy()
