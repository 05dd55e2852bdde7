"""One file of a repo, fetched from where an earlier run stopped.

Its bytes gather in a file beside the place where huggingface_hub's cache will have them, under the
name that older versions of the library resumed from. A lock on it makes a second run wait for the
first. The place is filled by a rename, after the hash has been compared with the published one.
"""

import fcntl
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from .http import client, headers, refuse_error
from .published import BLOCK, File

PARTIAL = ".incomplete"
SILENCE_SECONDS = 30.0  # without a byte, after which a connection counts as broken
PATIENCE = 6  # tries in a row that bring no byte
WAIT_SECONDS = 1.0  # before the second try; doubled with each further one
LONGEST_WAIT = 30.0
LOCK_SECONDS = 0.2  # between two looks at a lock that another run holds
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of a server that may do better in a moment."""
RANGE = re.compile(r"bytes (\d+)-")

Count = Callable[[int], None]
"""Takes bytes as they arrive, and those of an earlier run at once; negative where lost again."""


class WrongHashError(Exception):
    """A file arrived with another hash than the published one."""


class StoppedError(Exception):
    """The consumer wants no more of a file."""


class _InterruptedError(Exception):
    """A connection ended early, or a server asks to come back."""

    def __init__(self, cause: Exception | None, wait: float = 0.0):
        super().__init__(str(cause or "the connection ended before the file did"))
        self.cause, self.wait = cause, wait


def blob_of(repo: str, file: File) -> Path | None:
    """Return where huggingface_hub's cache has a file's bytes; None if nothing tells."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if file.hash is None or file.size is None:
        return None
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "blobs" / file.hash


def kept(repo: str, file: File) -> int:
    """Return how many of a file's bytes earlier runs have left."""
    blob = blob_of(repo, file)
    if blob is None:
        return 0
    try:
        size = blob.stat().st_size if blob.exists() else Path(f"{blob}{PARTIAL}").stat().st_size
    except OSError:
        return 0
    return min(size, file.size or 0)


def fetch_file(repo: str, revision: str, file: File, count: Count, stop: threading.Event) -> None:
    """Bring a file's bytes to its place in the cache, unless they are there already."""
    from huggingface_hub import hf_hub_url

    blob = blob_of(repo, file)
    if blob is None:  # huggingface_hub fetches it on its own
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(f"{blob}{PARTIAL}")
    if blob.exists() and blob.stat().st_size != file.size:
        blob.unlink()  # damaged
    if not blob.exists():
        with _locked(partial, stop) as out:
            if blob.exists():  # another run was faster
                partial.unlink()
            else:
                _Fetch(hf_hub_url(repo, file.name, revision=revision), file, out, count, stop).run()
                os.fsync(out.fileno())
                partial.replace(blob)
                return
    count(file.size or 0)


@contextmanager
def _locked(partial: Path, stop: threading.Event) -> Iterator[BinaryIO]:
    """Open a file to append to, once no other run writes it."""
    while True:
        with partial.open("a+b", buffering=0) as out:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if partial.exists() and os.fstat(out.fileno()).st_ino == partial.stat().st_ino:
                    yield out
                    return
            except BlockingIOError:
                pass
        if stop.wait(LOCK_SECONDS):
            raise StoppedError


class _Fetch:
    """The bytes of one file: those that are here, and the rest on its way."""

    def __init__(self, url: str, file: File, out: BinaryIO, count: Count, stop: threading.Event):
        self._url, self._file, self._out = url, file, out
        self._count, self._stop = count, stop
        self._size = file.size or 0
        self._have, self._hasher = 0, file.hasher()

    def run(self) -> None:
        """Complete the file, and hold it against its hash."""
        self._read_kept()
        while True:
            was_kept = self._have > 0
            self._complete()
            if self._hasher is None or self._hasher.hexdigest() == self._file.hash:
                return
            self._begin_anew()
            if not was_kept:
                raise WrongHashError(self._file.name)

    def _read_kept(self) -> None:
        """Take what an earlier run has left."""
        self._out.seek(0)
        while block := self._out.read(BLOCK):
            self._take(block)
            if self._have > self._size:  # of another file
                self._begin_anew()
                return

    def _begin_anew(self) -> None:
        self._out.truncate(0)
        self._count(-self._have)
        self._have, self._hasher = 0, self._file.hasher()

    def _take(self, block: bytes) -> None:
        if self._stop.is_set():
            raise StoppedError
        if self._hasher is not None:
            self._hasher.update(block)
        self._have += len(block)
        self._count(len(block))

    def _complete(self) -> None:
        """Request the missing bytes, again and again where a connection breaks or a server asks."""
        tries = 0
        while self._have < self._size:
            before = self._have
            try:
                for block in _blocks(self._url, self._have):
                    _write(self._out, block)
                    self._take(block)
                    if self._have > self._size:
                        return
                if self._have < self._size:
                    raise _InterruptedError(None)
            except _InterruptedError as error:
                tries = 1 if self._have > before else tries + 1
                if tries >= PATIENCE:
                    raise (error.cause or error) from error
                wait = min(WAIT_SECONDS * 2 ** (tries - 1), LONGEST_WAIT)
                if self._stop.wait(max(wait, error.wait)):
                    raise StoppedError from None


def _write(out: BinaryIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[out.write(view) :]


def _blocks(url: str, start: int) -> Generator[bytes, None, None]:
    """Yield a file's bytes from `start` on as they arrive."""
    session = client()
    http: Any = import_module(type(session).__module__.partition(".")[0])  # httpx, by any name
    sent_headers = {**headers(), "Accept-Encoding": "identity"}
    if start:
        sent_headers["Range"] = f"bytes={start}-"
    try:
        with session.stream("GET", url, headers=sent_headers, timeout=SILENCE_SECONDS) as response:
            _refuse(response)
            sent = RANGE.match(response.headers.get("Content-Range", ""))
            first = int(sent[1]) if sent and response.status_code == 206 else 0
            # A server that does not know ranges sends all of the file.
            yield from _after(response.iter_raw(), max(start - first, 0))
    except http.TransportError as error:
        raise _InterruptedError(error) from error


def _refuse(response: Any) -> None:
    """Raise where a server answers with an error; tell those that may pass."""
    try:
        refuse_error(response)
    except Exception as error:
        if response.status_code not in BUSY:
            raise
        wait = response.headers.get("Retry-After", "")
        seconds = min(float(wait), LONGEST_WAIT) if wait.isdecimal() else 0.0
        raise _InterruptedError(error, seconds) from error


def _after(blocks: Iterator[bytes], skipped: int) -> Generator[bytes, None, None]:
    """Yield bytes without the first few."""
    for block in blocks:
        if skipped < len(block):
            yield block[skipped:]
        skipped = max(skipped - len(block), 0)
