"""Locks on a folder, so that two servers do not share one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .. import RequestError

NAME = ".lock"


class FolderLock:
    """A lock that the system frees when the process ends, however it ends.

    A server takes the file `.lock`. Guests, which keep pictures in a server's folder, share the
    folder itself: what is not finished there may be theirs.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock, or raise who has it."""
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        file = self._open(self._folder / NAME, flags)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise RequestError(
                f"another server keeps its pictures in {self._folder}; name another folder "
                "with output_folder"
            ) from error
        except OSError:  # a network drive without locks: nobody can be told apart there
            pass
        self._file = file

    def join(self) -> None:
        """Share the folder as a guest."""
        import fcntl

        self._file = self._open(self._folder, os.O_RDONLY)
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def without_guests(self) -> Iterator[bool]:
        """Keep guests out for a moment; tell whether there are none."""
        import fcntl

        folder = self._open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except OSError:
            is_alone = False
        try:
            yield is_alone
        finally:
            os.close(folder)

    def release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _open(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            text = f"the output folder {self._folder} cannot be used: {error.strerror}"
            raise RequestError(text) from error
