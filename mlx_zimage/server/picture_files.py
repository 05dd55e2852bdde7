"""The files of the history: their names, and what is known of each picture.

A file may have come from anywhere and may have been changed by anybody: whatever it says about
itself is brought into the form that is listed, or left out.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .. import ZImageError, read_metadata
from .jobs import BIG

NAME = re.compile(r"([0-9]{8}-[0-9]{6})-(.*-)?([0-9a-f]{16})\.png")
TIME = "%Y%m%d-%H%M%S"
WORDS = 40  # characters of the prompt in a file's name
LONGEST = 20_000
"""Characters of a field that is listed; a longer one is named in `large`, and given for one
picture."""
SHEET = "sheet"
"""The word in a file's name that tells a contact sheet."""
Stamp = tuple[int, int]
"""A file's time and size, by which a change is noticed."""
UNREAD: Stamp = (-1, -1)
"""The stamp of a file that could not be read this time."""


@dataclass(frozen=True)
class Found:
    """A picture's file, and what is known of it."""

    id: str
    path: str
    stamp: Stamp
    about: Mapping[str, Any]  # what is listed
    text: str  # what is searched, in lower case
    place: tuple[float, int, str]  # what pictures are sorted by


def file_name(id: str, metadata: Mapping[str, Any], created: float) -> str:
    """Return the name of a new picture's file."""
    about = metadata["server"]
    words = SHEET if about.get("kind") == SHEET else slug(_prompt(metadata))
    parts = [time.strftime(TIME, time.localtime(created)), *([words] if words else []), id]
    return f"{'-'.join(parts)}.png"


def slug(text: str) -> str:
    """Return a prompt's first words for a file's name, in any script."""
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-_")
    return words[:WORDS].rstrip("-_")


def files(folder: Path) -> Iterator[tuple[str, str, Stamp]]:
    """Yield the id, the path and the stamp of each picture's file; links are no pictures.

    An OSError is raised where the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            match = NAME.fullmatch(entry.name)
            with suppress(OSError):  # it is gone already
                if match is not None and entry.is_file(follow_symlinks=False):
                    yield match[3], entry.path, stamp(entry.stat(follow_symlinks=False))


def stamp(about: os.stat_result) -> Stamp:
    return about.st_mtime_ns, about.st_size


def read(path: str, id: str, seen: Stamp) -> Found:
    """Return what is known of a file."""
    try:
        with open(path, "rb") as file:
            metadata, size = _metadata(file), _size(file)
    except OSError:  # too many open files, or a drive that is away: the next look may succeed
        metadata, size, seen = {}, (0, 0), UNREAD
    about = _about(id, metadata, size, _created(path, metadata, seen))
    said = [about["prompt"], about["seed"], about["model"], _negative(metadata)]
    said += [lora.get("source") or lora.get("name") for lora in about["loras"]]
    text = " ".join(str(value)[:LONGEST] for value in said if value is not None)
    place = (about["created"], about["index"], id)
    return Found(id, path, seen, about, text.casefold(), place)


def whole_metadata(path: str) -> dict[str, Any]:
    """Return all that a file holds about its picture."""
    try:
        with open(path, "rb") as file:
            return _metadata(file)
    except OSError:
        return {}


def plain(value: Any) -> Any:
    """Return a value as strict JSON has it: without NaN, without halves of characters."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return json.loads(text, parse_constant=lambda _: None)


def _metadata(file: Any) -> dict[str, Any]:
    with suppress(ZImageError, ValueError, RecursionError):
        metadata: dict[str, Any] = plain(read_metadata(file))
        return metadata
    return {}


def _size(file: Any) -> tuple[int, int]:
    file.seek(0)
    with suppress(Exception), Image.open(file, formats=("PNG",)) as image:
        return image.size
    return 0, 0


def _about(
    id: str, metadata: Mapping[str, Any], size: tuple[int, int], created: float
) -> dict[str, Any]:
    """Return what is listed of a picture."""
    request, server = _object(metadata, "request"), _object(metadata, "server")
    large = [name for name, value in request.items() if name in BIG or not _is_short(value)]
    index, kind, model = server.get("index"), server.get("kind"), metadata.get("model")
    loras = metadata.get("loras")
    listed = loras if isinstance(loras, list) and _is_short(loras) else []
    return {
        "id": id,
        "url": f"/files/{id}.png",
        "thumbnail": f"/files/{id}.thumb.webp",
        "width": size[0],
        "height": size[1],
        "created": created,
        "job": _text(server.get("job")),
        "index": index if type(index) is int and 0 <= index < 1 << 32 else 0,
        "kind": SHEET if kind == SHEET else "picture",
        "seed": _seed(metadata),
        "prompt": _text(_own(metadata, "prompt")),
        "request": {name: value for name, value in request.items() if name not in large},
        "large": large,
        "model": _text(model),
        "loras": [lora for lora in listed if isinstance(lora, dict)],
    }


def _created(path: str, metadata: Mapping[str, Any], seen: Stamp) -> float:
    """Return when a picture was made: a copy of its file has another time than the picture."""
    created = _object(metadata, "server").get("created")
    if type(created) is float and 0 < created < 1e11:
        return created
    match = NAME.fullmatch(os.path.basename(path))
    with suppress(ValueError, OverflowError):
        if match is not None:
            return time.mktime(time.strptime(match[1], TIME))
    return max(seen[0], 0) / 1e9


def _object(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = metadata.get(name)
    return value if isinstance(value, dict) else {}


def _own(metadata: Mapping[str, Any], name: str) -> Any:
    """Return a picture's own value, of a field that may hold one for each picture."""
    value, place = _object(metadata, "request").get(name), metadata.get("index", 0)
    if isinstance(value, list):
        return value[place] if type(place) is int and 0 <= place < len(value) else None
    return value


def _prompt(metadata: Mapping[str, Any]) -> str:
    return str(_own(metadata, "prompt") or "")


def _negative(metadata: Mapping[str, Any]) -> str | None:
    return _text(_own(metadata, "negative_prompt"))


def _seed(metadata: Mapping[str, Any]) -> int | None:
    seed = _own(metadata, "seed")
    return seed if type(seed) is int else None


def _text(value: Any) -> str | None:
    return value[:LONGEST] if isinstance(value, str) else None


def _is_short(value: Any) -> bool:
    return not isinstance(value, str | list | dict) or len(json.dumps(value)) <= LONGEST
