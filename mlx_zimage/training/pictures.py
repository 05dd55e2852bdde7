"""The pictures of a training run and their captions, in a folder or in a JSONL file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..checks import excerpt, path_text, reason
from ..errors import RequestError
from ..files import digest
from ..images.canvas import fitted, near_size, over_white
from ..images.picture import Picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff")
LIST = "metadata.jsonl"
"""A list of captions in a folder of pictures, named as the Hub's image folders name it."""
FILE_KEYS = ("file_name", "file", "image", "path")
TEXT_KEYS = ("text", "caption", "prompt")
BUCKETS = 16  # steps of a bucket's side in the side of a square of the same area

Size = tuple[int, int]


@dataclass(frozen=True)
class Example:
    """A picture with its caption, and the size that it is brought to."""

    file: Path
    caption: str
    size: Size  # width and height

    @property
    def digest(self) -> str:
        """The SHA-256 of the picture's file."""
        try:
            return digest(self.file)
        except OSError as error:
            raise _unreadable(self.file, error) from error

    def read(self) -> Image.Image:
        """Return the picture at its size: scaled to cover it, and cut at the edges."""
        image = over_white(Picture.read("the picture", self.file))
        return fitted(image.size, self.size, "crop", 1).apply(image)


def find(images: Path, default_caption: str | None, area: int, multiple: int) -> list[Example]:
    """Return the examples of a folder or a JSONL file, in the order of their names.

    Each is brought to a size of at most `area` pixels, in multiples of `multiple`.
    """
    pairs = list(_pairs(images))
    if not pairs:
        raise RequestError(
            f"{path_text(images)} holds no pictures; put {', '.join(SUFFIXES)} files there"
        )
    captions = {file: default_caption if text is None else text for file, text in pairs}
    missing = [file for file, text in captions.items() if text is None]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        text = missing[0].with_suffix(".txt").name
        raise RequestError(
            f"{path_text(missing[0])}{others} must have a caption: write it into {text} beside "
            "the picture, or give default_caption='TEXT'"
        )
    step = max(round(area**0.5 / BUCKETS / multiple), 1) * multiple
    return [
        Example(file, text, near_size(_size(file), step, area, (1 << 14, 1 << 14)))
        for file, text in captions.items()
        if text is not None
    ]


def _pairs(images: Path) -> Iterator[tuple[Path, str | None]]:
    if images.is_file() and images.suffix == ".jsonl":
        yield from _listed(images)
        return
    if not images.is_dir():
        raise RequestError(
            f"the pictures must be in a folder or listed in a .jsonl file, not "
            f"{path_text(images)}, which is not one"
        )
    if (images / LIST).is_file():
        yield from _listed(images / LIST)
        return
    for file in sorted(images.iterdir()):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            beside = file.with_suffix(".txt")
            yield file, _text(beside) if beside.is_file() else None


def _listed(file: Path) -> Iterator[tuple[Path, str | None]]:
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError:
            row = None
        name = _first(row, FILE_KEYS)
        if name is None:
            raise RequestError(
                f"line {number} of {path_text(file)} must be a JSON object with file_name and "
                f"text, not {excerpt(line)}"
            )
        yield file.parent / name, _first(row, TEXT_KEYS)


def _first(row: Any, keys: tuple[str, ...]) -> str | None:
    values = [row.get(key) for key in keys] if isinstance(row, dict) else []
    return next((value for value in values if isinstance(value, str)), None)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _size(file: Path) -> Size:
    """Return a picture's upright size by its header."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise _unreadable(file, error) from error
    return (height, width) if turned else (width, height)


def _unreadable(file: Path, error: BaseException) -> RequestError:
    return RequestError(f"{path_text(file)} cannot be read: {reason(error)}; replace or remove it")
