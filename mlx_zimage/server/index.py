"""The index of the history: what its folder holds, kept in memory and read again on a change."""

import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

from .picture_files import Found, files, read

Place = tuple[float, int, str]
TICK = 2.0
"""Seconds within which a folder may change without another time: the coarsest file systems'."""
TRUSTED = 5.0
"""Seconds after which files are looked at even so: a change of a file is none of its folder."""
GONE = 1000
"""Pictures that are gone and whose place is still known, for who lists what comes after them."""


class Index:
    """The facts about the pictures in a folder; from any thread.

    Files are read outside of the lock, so that a picture is added, shown and removed while ten
    thousand others are read.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._found: dict[str, Found] = {}
        self._newest: list[Found] | None = None  # None: to be sorted
        self._gone: OrderedDict[str, Place] = OrderedDict()
        self._changed: dict[str, Found | None] = {}  # since the files were looked at
        self._seen: tuple[int, float] | None = None  # the folder's time, and when it was read

    def newest(self) -> list[Found]:
        """Return what is in the folder now, the newest first."""
        self._look()
        with self._lock:
            if self._newest is None:
                self._newest = sorted(self._found.values(), key=_place, reverse=True)
            return self._newest

    def get(self, id: str) -> Found | None:
        """Return what is known of a picture; the folder is looked at for one that is not."""
        if not self.has(id):
            self._look()
        with self._lock:
            return self._found.get(id)

    def has(self, id: str) -> bool:
        with self._lock:
            return id in self._found

    def place_of(self, id: str) -> Place | None:
        """Return where a picture is, or was, in the list."""
        found = self.get(id)
        with self._lock:
            return self._gone.get(id) if found is None else found.place

    def put(self, found: Found) -> None:
        """Take a picture that has been saved."""
        with self._lock:
            self._found[found.id] = self._changed[found.id] = found
            self._newest = None

    def drop(self, id: str) -> None:
        """Forget a picture that has been deleted."""
        with self._lock:
            self._forget(id)
            self._changed[id] = None

    def _forget(self, id: str) -> None:
        found = self._found.pop(id, None)
        if found is not None:
            self._newest = None
            self._gone[id] = found.place
            while len(self._gone) > GONE:
                self._gone.popitem(last=False)

    def _look(self) -> None:
        """Read what is new in the folder, and forget what is gone."""
        with self._looking:
            before = self._folder_time()
            if self._is_known(before):
                return
            with self._lock:
                known = dict(self._found)
                self._changed.clear()
            began = time.time()
            try:
                listed = self._read(known)
            except FileNotFoundError:
                listed = {}
            except OSError:  # too many open files, or a drive that is away: nothing is known
                return
            self._seen = (before, began)
            with self._lock:
                self._take(listed)

    def _read(self, known: dict[str, Found]) -> dict[str, Found]:
        listed: dict[str, Found] = {}
        for id, path, seen in files(self._folder):
            if id in listed and listed[id].path < path:
                continue  # a copy with another name: one of the two is the picture
            found = known.get(id)
            is_same = found is not None and (found.path, found.stamp) == (path, seen)
            listed[id] = found if found is not None and is_same else read(path, id, seen)
        return listed

    def _take(self, listed: dict[str, Found]) -> None:
        """Put what was read in the place of what was known, but for what happened meanwhile."""
        for id, found in self._changed.items():
            if found is None:
                listed.pop(id, None)
            else:
                listed[id] = found
        for id in [id for id in self._found if id not in listed]:
            self._forget(id)
        if any(self._found.get(id) is not found for id, found in listed.items()):
            self._newest = None
        self._found = listed

    def _folder_time(self) -> int:
        try:
            return os.stat(self._folder).st_mtime_ns
        except OSError:
            return 0

    def _is_known(self, folder_time: int) -> bool:
        """Return whether another look at the folder would find nothing new."""
        if self._seen is None or self._seen[0] != folder_time:
            return False
        began = self._seen[1]
        return began > folder_time / 1e9 + TICK and 0 <= time.time() - began < TRUSTED


def _place(found: Found) -> Place:
    return found.place
