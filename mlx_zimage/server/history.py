"""The history: a folder of pictures, and nothing beside it.

A picture's file bears its time, words and id, and holds its request. So the folder needs no
database that could disagree with it: what is there is the history, after any interruption, and
whatever a person moves or deletes. The index in memory is read from the files.
"""

import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from .. import RequestError, save_png
from .failures import Refusal, refusal_of
from .index import Index
from .locks import FolderLock
from .picture_files import Found, file_name, read, slug, stamp, whole_metadata
from .thumbnails import Thumbnails

LEFTOVER = re.compile(r"\.[0-9a-f]{16}(\.part|-[0-9a-f]{8})")
"""Names of files that were not finished: the library's, and thumbnails'."""
ID = re.compile(r"[0-9a-f]{16}")
THUMBNAILS = ".thumbnails"


class History:
    """The pictures of one folder; from any thread."""

    def __init__(self, folder: Path):
        with suppress(RuntimeError):  # a home that nobody has is a folder's name
            folder = folder.expanduser()
        self._folder = folder
        self._held = FolderLock(self._folder)
        self._thumbnails = Thumbnails(self._folder / THUMBNAILS)
        self._index = Index(self._folder)

    def open(self, *, alone: bool = True) -> None:
        """Take the folder for this server; one that cannot be used is told.

        Not `alone`, a server may have it already: what it has not finished yet is left alone.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            text = f"the output folder {self._folder} cannot be made: {error.strerror}"
            raise RequestError(text) from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise RequestError(f"the output folder {self._folder} cannot be written to")
        if alone:
            self._held.take()
            with self._held.without_guests() as is_alone:
                for folder in (self._folder, self._folder / THUMBNAILS) if is_alone else ():
                    remove_leftovers(folder)
        else:
            self._held.join()
        # Ten thousand headers take seconds: whoever asks for the list meanwhile waits.
        threading.Thread(target=self._begin, args=(alone,), daemon=True).start()

    def close(self) -> None:
        self._held.release()

    def add(
        self, picture: Image.Image, metadata: Mapping[str, Any] | None, **about: Any
    ) -> dict[str, Any]:
        """Keep a picture, and return what is listed of it. `about` is its job, index and kind."""
        id, created = secrets.token_hex(8), time.time()
        data = {**(metadata or {}), "server": {**about, "created": created}}
        path = self._folder / file_name(id, data, created)
        with _saving():
            save_png(picture, path, data)
            found = read(str(path), id, stamp(path.stat()))
        self._index.put(found)
        with suppress(OSError):
            self._thumbnails.make(id, picture)
        return dict(found.about)

    def list(
        self, before: str | None = None, limit: int = 50, query: str = ""
    ) -> tuple[list[dict[str, Any]], int]:
        """Return the newest pictures that hold all words of `query`, and how many there are."""
        words = {*query.casefold().split()}
        found = [one for one in self._index.newest() if all(word in one.text for word in words)]
        total = len(found)
        if before is not None:
            edge = self._edge(before)
            found = [one for one in found if one.place < edge]
        return [dict(one.about) for one in found[:limit]], total

    def entry(self, id: str) -> dict[str, Any]:
        """Return a picture with its whole request, pictures and arrays included."""
        found = self._get(id)
        metadata = whole_metadata(found.path)
        request = metadata.pop("request", {})
        metadata.pop("server", None)
        return {**found.about, "request": request, "metadata": metadata}

    def path_of(self, id: str) -> Path:
        return Path(self._get(id).path)

    def bytes_of(self, id: str) -> bytes:
        """Return the picture's file."""
        try:
            return self.path_of(id).read_bytes()
        except FileNotFoundError as error:
            raise _missing() from error
        except OSError as error:
            text = f"the picture cannot be read: {error.strerror}"
            raise Refusal(500, text, "system_error") from error

    def thumbnail(self, id: str) -> bytes:
        """Return a small WebP, which is made if it is not there."""
        return self._thumbnails.read(id, self.path_of(id))

    def remove(self, id: str) -> None:
        """Delete a picture and its thumbnail."""
        path = self.path_of(id)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            text = f"the picture cannot be deleted: {error.strerror}"
            raise Refusal(500, text, "system_error") from error
        self._index.drop(id)
        self._thumbnails.remove(id)

    def name_for_download(self, id: str) -> str:
        """Return a name for a picture's copy: its day, its words and its seed."""
        about = self._get(id).about
        day = time.strftime("%Y-%m-%d", time.localtime(about["created"]))
        words, seed = slug(about["prompt"] or "") or str(about["kind"]), about["seed"]
        return "-".join([day, words, *([] if seed is None else [str(seed)[:20]])]) + ".png"

    def _begin(self, alone: bool) -> None:
        known = {found.id for found in self._index.newest()}
        if alone and known:  # without any, the folder may be a drive that is away
            self._thumbnails.keep_only(known, self._index.has)

    def _get(self, id: str) -> Found:
        found = self._index.get(id) if ID.fullmatch(id) else None
        if found is None or not _is_file(found.path):
            raise _missing()
        return found

    def _edge(self, id: str) -> tuple[float, int, str]:
        """Return the place of a picture, which may have been removed since it was listed."""
        place = self._index.place_of(id) if ID.fullmatch(id) else None
        if place is None:
            raise _missing()
        return place


@contextmanager
def _saving() -> Iterator[None]:
    """Tell what the file system refuses, such as a full disk, as what it is."""
    try:
        yield
    except (RequestError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        refusal = refusal_of(cause)
        refusal.message = f"the picture cannot be saved: {refusal.message}"
        raise refusal from error


def remove_leftovers(folder: Path) -> None:
    """Remove the halves of files that a killed server left."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if LEFTOVER.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(entry.path)


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _missing() -> Refusal:
    return Refusal(404, "there is no such picture", "not_found")
