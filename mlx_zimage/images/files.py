"""Picture files that hold the request that made them, as JSON.

PNG holds it in a text chunk, WebP and AVIF in EXIF's image description. JPEG does so too, up to the
64 KB of a segment; a longer text goes into as many comment segments as it needs. A request that
holds pictures, latents or embeddings adds about a megabyte for each. Beside it stands a
`parameters` text for people and other programs: in a text chunk of PNG, elsewhere in EXIF.
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
from .parameters import LONGEST, read_parameters, write_parameters

KEY = "mlx_zimage"
"""The name of PNG's text chunk, and of the JSON object's only key in JPEG and WebP."""

QUALITY = 95
SEGMENT = 65_533  # bytes of text in one JPEG segment
START = f'{{"{KEY}"'
EXIF, DESCRIPTION, USER_COMMENT = 0x8769, 0x010E, 0x9286  # of the EXIF standard
UNICODE = b"UNICODE\0"
PARAMETERS = "parameters"


def save_picture(
    image: Image.Image,
    path: str | Path,
    metadata: Mapping[str, Any] | None,
    *,
    overwrite: bool = False,
) -> None:
    """Save a .png, .jpg, .jpeg, .webp or .avif file that holds `metadata`, for `read_metadata`.

    The file is written completely or not at all, replaces another only with `overwrite`, and its
    folder is made if it is missing. PNG keeps every pixel; the others are saved with quality 95.
    With `metadata` None the file does not tell how the picture was made.
    """
    path = checks.path("the output", path)
    check_output(path, PICTURES, overwrite=overwrite)
    _save(image, path, metadata, WRITERS[path.suffix.lower()], overwrite)


def save_png(
    image: Image.Image,
    path: str | Path,
    metadata: Mapping[str, Any] | None,
    *,
    overwrite: bool = False,
) -> None:
    """Save a PNG file, whatever its name, as `save_picture` does."""
    _save(image, checks.path("the output", path), metadata, _write_png, overwrite)


def read_metadata(path: str | Path | BinaryIO) -> dict[str, Any]:
    """Return the metadata of a file that `save_picture` or `save_png` wrote.

    `Request.from_dict` takes its "request". An open file is read from its beginning.
    """
    data = _read(path, lambda image: READERS.get(image.format or "", _nothing)(image))
    if not isinstance(data, dict):
        raise RequestError(
            f"{picture_text(path)} holds no request: it was not written by mlx_zimage, or another "
            "program has removed it"
        )
    return data


def picture_text(path: str | Path | BinaryIO) -> str:
    """Return how messages name a picture's file."""
    return path_text(path) if isinstance(path, str | Path) else "the picture"


def read_foreign_metadata(path: str | Path | BinaryIO) -> tuple[dict[str, Any], list[str]] | None:
    """Return the request's fields that another program's `parameters` text holds, and the rest.

    The rest are settings that have no equivalent here. None: the picture holds no such text.
    """
    text = _read(path, _foreign_parameters)
    return None if text is None else read_parameters(text)


def _read(path: str | Path | BinaryIO, read: Callable[[Any], Any]) -> Any:
    """Open a picture and read from it; every failure is a RequestError."""
    if not hasattr(path, "seek"):
        path = checks.path("the picture", path)
    name = picture_text(path)
    try:
        if not isinstance(path, Path):
            path.seek(0)
        with Image.open(path) as image:
            return read(image)
    except OSError as error:
        why = reason(error) if error.strerror else "it is damaged, or of an unknown format"
        raise RequestError(f"{name} cannot be read as a picture: {why}") from error
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise RequestError(f"{name} cannot be read as a picture: {reason(error)}") from error


def _save(
    image: Image.Image,
    path: Path,
    metadata: Mapping[str, Any] | None,
    write: Callable[[BinaryIO, Image.Image, Any], None],
    overwrite: bool,
) -> None:
    if not isinstance(image, Image.Image):
        raise RequestError(f"the picture must be a PIL image, not {checks.excerpt(image)}")
    try:
        data = None if metadata is None else dict(metadata)
        json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"metadata must be an object for JSON: {reason(error)}") from error
    write_atomically(path, lambda file: write(file, image, data), overwrite=overwrite)


def _write_png(file: BinaryIO, image: Image.Image, data: Any) -> None:
    info = PngInfo()
    # Not compressed: readers refuse a text that unpacks to more than a megabyte, and arrays do.
    if data is not None:
        try:
            info.add_itxt(KEY, json.dumps(data, ensure_ascii=False))
        except UnicodeEncodeError:  # a model's path may hold bytes that are not Unicode
            info.add_itxt(KEY, json.dumps(data))
        info.add_itxt(PARAMETERS, _parameters(data))
    image.save(file, "PNG", pnginfo=info)


def _write_jpeg(file: BinaryIO, image: Image.Image, data: Any) -> None:
    encoded, text = BytesIO(), "" if data is None else json.dumps({KEY: data})
    is_short = len(text) < SEGMENT // 2  # so that both texts fit in one segment
    exif = _exif(data, text if is_short else "")
    image.save(encoded, "JPEG", quality=QUALITY, subsampling=0, exif=exif)
    picture = encoded.getvalue()
    header = 4 + int.from_bytes(picture[4:6], "big")  # the start marker and the first segment
    file.write(picture[:header])
    for start in range(0, 0 if is_short else len(text), SEGMENT):
        piece = text[start : start + SEGMENT].encode("ascii")
        file.write(b"\xff\xfe" + (len(piece) + 2).to_bytes(2, "big") + piece)
    file.write(picture[header:])


def _write_webp(file: BinaryIO, image: Image.Image, data: Any) -> None:
    image.save(file, "WEBP", quality=QUALITY, exif=_exif(data, json.dumps({KEY: data})))


def _write_avif(file: BinaryIO, image: Image.Image, data: Any) -> None:
    image.save(file, "AVIF", quality=QUALITY, exif=_exif(data, json.dumps({KEY: data})))


def _exif(data: Any, description: str) -> Image.Exif:
    """Return an EXIF block with the JSON and the `parameters` text, or an empty one."""
    exif = Image.Exif()
    if data is not None and description:
        exif[DESCRIPTION] = description
    if data is not None:
        text = _parameters(data)[: SEGMENT // 8].encode("utf-16-be", "replace")
        exif.get_ifd(EXIF)[USER_COMMENT] = UNICODE + text
    return exif


def _parameters(data: Any) -> str:
    return write_parameters(data).encode("utf-8", "replace").decode()


def _read_png(image: Any) -> Any:
    text = _png_text(image, KEY)
    return None if text is None else json.loads(text)


def _png_text(image: Any, name: str) -> str | None:
    """Return a text of a PNG file; pixels are decoded only where it may stand behind them."""
    text = image.info.get(name)
    if text is None:
        text = image.text.get(name)
    return text if isinstance(text, str) else None


def _read_jpeg(image: Any) -> Any:
    comments = b"".join(data for name, data in image.applist if name == "COM")
    data = _under_key(comments[max(comments.find(START.encode()), 0) :].decode("ascii", "replace"))
    return _read_exif(image) if data is None else data


def _read_exif(image: Image.Image) -> Any:
    return _under_key(str(image.getexif().get(DESCRIPTION, "")))


def _under_key(text: str) -> Any:
    return json.loads(text.rstrip("\0"))[KEY] if text.startswith(START) else None


def _nothing(_: Any) -> Any:
    return None


def _foreign_parameters(image: Any) -> str | None:
    """Return the `parameters` text that another program has written."""
    text = _png_text(image, PARAMETERS) if image.format == "PNG" else None
    if text is None:
        comment = image.getexif().get_ifd(EXIF).get(USER_COMMENT, b"")
        if isinstance(comment, bytes) and comment.startswith(UNICODE):
            text = comment.removeprefix(UNICODE).decode("utf-16-be", "replace")
    is_text = isinstance(text, str) and len(text) <= LONGEST and text.strip()
    return text if is_text else None


WRITERS: dict[str, Callable[[BinaryIO, Image.Image, Any], None]] = {
    ".png": _write_png,
    ".jpg": _write_jpeg,
    ".jpeg": _write_jpeg,
    ".webp": _write_webp,
    ".avif": _write_avif,
}
"""The writer for each ending of a file's name."""

READERS: dict[str, Callable[[Any], Any]] = {
    "PNG": _read_png,
    "JPEG": _read_jpeg,
    "WEBP": _read_exif,
    "AVIF": _read_exif,
}
"""The reader of the metadata for each of Pillow's formats."""

PICTURES = tuple(WRITERS)
"""The endings that a picture's name may have, for `check_output`."""
