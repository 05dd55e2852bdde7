"""Thumbnails of pictures: made once, kept beside them, and made again where they are missing."""

import contextlib
import io
import os
import re
import secrets
from collections.abc import Callable, Collection
from pathlib import Path

from PIL import Image

from .failures import Refusal

SIDE = 384  # pixels of the longer side at most
QUALITY = 82
START = b"RIFF"
ENDING = ".webp"
ID = re.compile(r"[0-9a-f]{16}")


class Thumbnails:
    """A folder of WebP files by the ids of their pictures. It may be deleted at any time."""

    def __init__(self, folder: Path):
        self._folder = folder

    def make(self, id: str, picture: Image.Image) -> bytes:
        """Return a picture's thumbnail, and keep it where there is room."""
        data = _encode(picture)
        temporary = self._folder / f".{id}-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(exist_ok=True)
            temporary.write_bytes(data)
            os.replace(temporary, self._path(id))
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return data

    def read(self, id: str, picture: Path) -> bytes:
        """Return the thumbnail of a picture's file."""
        with contextlib.suppress(OSError):
            kept = self._path(id)
            data, is_older = kept.read_bytes(), kept.stat().st_mtime_ns < _time(picture)
            is_whole = int.from_bytes(data[4:8], "little") + 8 == len(data)
            if data.startswith(START) and is_whole and not is_older:
                return data
        try:
            with Image.open(picture, formats=("PNG",)) as image:
                return self.make(id, image)
        except Exception as error:  # Pillow raises errors of many kinds for a damaged file
            raise Refusal(404, "the picture's file is damaged", "not_found") from error

    def remove(self, id: str) -> None:
        with contextlib.suppress(OSError):
            self._path(id).unlink(missing_ok=True)

    def keep_only(self, known: Collection[str], has: Callable[[str], bool]) -> None:
        """Remove the thumbnails of pictures that are gone; `has` knows of those that came since."""
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                id, ending = os.path.splitext(entry.name)
                is_ours = ending == ENDING and ID.fullmatch(id) is not None
                if is_ours and id not in known and not has(id):
                    self.remove(id)

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}{ENDING}"


def _time(picture: Path) -> int:
    """Return when a picture's file was changed; what is shown of it before that is no more."""
    return picture.stat().st_mtime_ns


def _encode(picture: Image.Image) -> bytes:
    file, small = io.BytesIO(), picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()
