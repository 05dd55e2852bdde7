"""The files of a published model: their names, sizes and hashes, from the Hub or from a list."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import path_text, reason
from ..errors import RequestError
from ..files import write_atomically

if TYPE_CHECKING:
    from hashlib import _Hash

ALGORITHMS = {"sha256": 64, "git_sha1": 40, "md5": 32}
"""Hashes that lists hold, and their lengths; the Hub names Git's own for a small file."""
SUM = re.compile(r"([0-9a-f]{32}|[0-9a-f]{64})[ \t][ \t*](\S.*)", re.IGNORECASE)
"""A line of `md5sum` or `sha256sum`."""
BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class File:
    """A published file."""

    name: str
    size: int | None  # lists of sums have none
    hash: str | None  # SHA-256 of large files; Git's SHA-1 or MD5 of others

    @property
    def algorithm(self) -> str | None:
        return next((a for a, n in ALGORITHMS.items() if self.hash and len(self.hash) == n), None)

    def hasher(self) -> "_Hash | None":
        """Return what takes the file's bytes and has `hash` for its result."""
        if self.algorithm == "git_sha1":
            return hashlib.sha1(b"blob %d\0" % (self.size or 0))
        return None if self.algorithm is None else hashlib.new(self.algorithm)

    def is_in(self, path: Path) -> bool:
        """Return whether a file on this machine has the published hash."""
        hasher = self.hasher()
        if hasher is None:
            return True
        with path.open("rb") as handle:
            while block := handle.read(BLOCK):
                hasher.update(block)
        return hasher.hexdigest() == self.hash


@dataclass(frozen=True)
class Published:
    """The files of a model at one revision."""

    source: str  # the repo, or the name of the list
    revision: str | None  # a commit
    license: str | None
    files: tuple[File, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the list as JSON's objects, for `read_list`."""
        files = {}
        for file in self.files:
            entry: dict[str, Any] = {} if file.size is None else {"size": file.size}
            if file.algorithm is not None:
                entry[file.algorithm] = file.hash
            files[file.name] = entry
        about = {"source": self.source, "revision": self.revision, "license": self.license}
        return {**about, "files": files}

    def save(self, file: Path) -> None:
        """Write the list as JSON, for `read_list`."""
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_atomically(file, lambda out: out.write(text.encode()))


def read_list(path: Path) -> Published:
    """Read a list of files: JSON, or the lines of `sha256sum` or `md5sum`."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise RequestError(f"{path_text(path)} cannot be read: {reason(error)}") from error
    files = _from_json(text) if text.lstrip().startswith("{") else _from_sums(text)
    if not files:
        raise RequestError(
            f"{path_text(path)} must list files: JSON that verify --save wrote, or the lines of "
            "sha256sum or md5sum"
        )
    about = json.loads(text) if text.lstrip().startswith("{") else {}
    return Published(
        _text(about.get("source")) or path.name,
        _text(about.get("revision")),
        _text(about.get("license")),
        files,
    )


def _from_json(text: str) -> tuple[File, ...]:
    try:
        entries = json.loads(text).get("files")
    except (ValueError, RecursionError):
        return ()
    if not isinstance(entries, Mapping):
        return ()
    return tuple(_file(name, entry) for name, entry in entries.items() if _is_inside(name))


def _file(name: str, entry: object) -> File:
    about = entry if isinstance(entry, Mapping) else {}
    size = about.get("size")
    hashes = [about[a] for a, n in ALGORITHMS.items() if len(_text(about.get(a)) or "") == n]
    return File(name, size if type(size) is int else None, hashes[0] if hashes else None)


def _from_sums(text: str) -> tuple[File, ...]:
    lines = (line.strip() for line in text.splitlines())
    matches = [SUM.fullmatch(line) for line in lines if line and not line.startswith("#")]
    if not all(matches):
        return ()
    return tuple(
        File(match[2].removeprefix("./"), None, match[1].lower())
        for match in matches
        if match and _is_inside(match[2])
    )


def _is_inside(name: str) -> bool:
    """Return whether a name stays inside its folder."""
    return not name.startswith("/") and ".." not in name.split("/")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
