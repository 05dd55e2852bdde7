"""Picture files that hold the request that made them, as JSON.

PNG holds it in a text chunk, JPEG in comment segments, WebP in EXIF's user comment. None of them
limits its length: a JPEG segment ends at 64 KB, so a longer text goes on in the next one. A request
that holds latents or embeddings adds about a megabyte for each.
"""

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .. import checks
from ..checks import path_text, reason
from ..errors import RequestError
from ..files import check_output, write_atomically

KEY = "mlx_zimage"
"""The name of PNG's text chunk, and of the JSON object's only key in JPEG and WebP."""

QUALITY = 95
SEGMENT = 65_533  # bytes of text in one JPEG segment
START = f'{{"{KEY}"'.encode()
EXIF, USER_COMMENT, ASCII = 0x8769, 0x9286, b"ASCII\0\0\0"  # of the EXIF standard


def save_picture(
    image: Image.Image, path: str | Path, metadata: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Save a .png, .jpg, .jpeg or .webp file that holds `metadata`, for `read_metadata`.

    The file is written completely or not at all, replaces another only with `overwrite`, and its
    folder is made if it is missing. PNG keeps every pixel; JPEG and WebP are saved with quality 95.
    """
    path = checks.path("the output", path)
    check_output(path, PICTURES, overwrite=overwrite)
    _save(image, path, metadata, WRITERS[path.suffix.lower()], overwrite)


def save_png(
    image: Image.Image, path: str | Path, metadata: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Save a PNG file, whatever its name, as `save_picture` does."""
    _save(image, checks.path("the output", path), metadata, _write_png, overwrite)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a file that `save_picture` or `save_png` wrote.

    `Request.from_dict` takes its "request".
    """
    path = checks.path("the picture", path)
    try:
        with Image.open(path) as image:
            data = READERS.get(image.format or "", _nothing)(image)
    except OSError as error:
        why = reason(error) if error.strerror else "it is damaged, or of an unknown format"
        raise RequestError(f"{path_text(path)} cannot be read as a picture: {why}") from error
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise RequestError(
            f"{path_text(path)} cannot be read as a picture: {reason(error)}"
        ) from error
    if not isinstance(data, dict):
        raise RequestError(
            f"{path_text(path)} holds no request: it was not written by mlx_zimage, or another "
            "program has removed it"
        )
    return data


def _save(
    image: Image.Image,
    path: Path,
    metadata: Mapping[str, Any],
    write: Callable[[BinaryIO, Image.Image, Any], None],
    overwrite: bool,
) -> None:
    if not isinstance(image, Image.Image):
        raise RequestError(f"the picture must be a PIL image, not {checks.excerpt(image)}")
    try:
        data = dict(metadata)
        json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"metadata must be an object for JSON: {reason(error)}") from error
    write_atomically(path, lambda file: write(file, image, data), overwrite=overwrite)


def _write_png(file: BinaryIO, image: Image.Image, data: Any) -> None:
    info = PngInfo()
    # Not compressed: readers refuse a text that unpacks to more than a megabyte, and arrays do.
    try:
        info.add_itxt(KEY, json.dumps(data, ensure_ascii=False))
    except UnicodeEncodeError:  # a model's path may hold bytes that are not Unicode
        info.add_itxt(KEY, json.dumps(data))
    image.save(file, "PNG", pnginfo=info)


def _write_jpeg(file: BinaryIO, image: Image.Image, data: Any) -> None:
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=QUALITY, subsampling=0)
    picture, text = encoded.getvalue(), json.dumps({KEY: data}).encode("ascii")
    header = 4 + int.from_bytes(picture[4:6], "big")  # the start marker and the JFIF segment
    file.write(picture[:header])
    for start in range(0, len(text), SEGMENT):
        piece = text[start : start + SEGMENT]
        file.write(b"\xff\xfe" + (len(piece) + 2).to_bytes(2, "big") + piece)
    file.write(picture[header:])


def _write_webp(file: BinaryIO, image: Image.Image, data: Any) -> None:
    exif = Image.Exif()
    exif.get_ifd(EXIF)[USER_COMMENT] = ASCII + json.dumps({KEY: data}).encode("ascii")
    image.save(file, "WEBP", quality=QUALITY, exif=exif)


def _read_png(image: Any) -> Any:
    text = image.text.get(KEY)
    return None if text is None else json.loads(text)


def _read_jpeg(image: Any) -> Any:
    comments = b"".join(data for name, data in image.applist if name == "COM")
    return _under_key(comments[max(comments.find(START), 0) :])


def _read_webp(image: Image.Image) -> Any:
    comment = image.getexif().get_ifd(EXIF).get(USER_COMMENT, b"")
    return _under_key(comment.removeprefix(ASCII))


def _under_key(text: bytes) -> Any:
    return json.loads(text)[KEY] if text.startswith(START) else None


def _nothing(_: Any) -> Any:
    return None


WRITERS: dict[str, Callable[[BinaryIO, Image.Image, Any], None]] = {
    ".png": _write_png,
    ".jpg": _write_jpeg,
    ".jpeg": _write_jpeg,
    ".webp": _write_webp,
}
"""The writer for each ending of a file's name."""

READERS: dict[str, Callable[[Any], Any]] = {
    "PNG": _read_png,
    "JPEG": _read_jpeg,
    "WEBP": _read_webp,
}
"""The reader of the metadata for each of Pillow's formats."""

PICTURES = tuple(WRITERS)
"""The endings that a picture's name may have, for `check_output`."""
