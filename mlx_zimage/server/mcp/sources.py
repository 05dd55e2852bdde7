"""Pictures that an MCP client names: a file in an allowed folder, a data URL, or an id."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..edits import data_url
from ..failures import Refusal
from ..pictures import DATA_URL, check_picture, from_data_url
from .studio import Studio

ID = re.compile(r"(?:zimage://images/)?([0-9a-f]{16})")
LARGEST = 64 << 20  # bytes of a file


async def read_source(source: str, name: str, studio: Studio, folders: Sequence[Path]) -> str:
    """Return a picture as a data URL."""
    if source.startswith(DATA_URL):
        data = from_data_url(source, name)
    elif match := ID.fullmatch(source):
        data = await studio.picture(match[1])
    else:
        data = _file(source, name, folders)
    check_picture(data, name)
    return data_url(data)


def _file(source: str, name: str, folders: Sequence[Path]) -> bytes:
    """Return a file's bytes, if it lies in one of the folders once every link is followed."""
    refusal = Refusal(
        403,
        f"{name} must be the id of a picture, a data URL, or a file in a folder that --allow-dir "
        "names",
        "path_not_allowed",
        name,
    )
    try:
        path = Path(source).expanduser().resolve(strict=True)
        allowed = any(path.is_relative_to(folder.expanduser().resolve()) for folder in folders)
        if not allowed or not path.is_file() or path.stat().st_size > LARGEST:
            raise refusal
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a loop of links, no such home
        raise refusal from error
