"""Standard error as people read it: on a terminal one line that moves, elsewhere plain lines."""

import contextlib
import os
import shutil
import unicodedata
from typing import TextIO

CLEAR = "\r\x1b[2K"


class Screen:
    """A stream for progress. What cannot be written is dropped: it is no reason to stop."""

    def __init__(self, stream: TextIO):
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._stream = stream
        self._moving = False  # a line without its end is on the screen
        self._rows = 0  # of a picture below that line

    def update(self, text: str) -> None:
        """Show `text` in place of the line that moves; only where the screen is live."""
        self._write(CLEAR + cut(text, self._columns() - 1))
        self._moving = True

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self.clear()
        self._write(f"{text}\n")

    def picture(self, escape: str, rows: int) -> None:
        """Show a picture of so many rows below the line that moves, in place of the last one."""
        if not self._rows:
            self._write("\n" * (rows + 1) + f"\x1b[{rows + 1}A")  # room, before it scrolls
        self._write(f"\x1b7\r\n{escape}\x1b8")
        self._rows = rows

    def clear(self) -> None:
        """Remove the line that moves; what follows comes after a picture."""
        if self._moving:
            self._write(CLEAR)
            self._moving = False
        if self._rows:
            self._write(f"\x1b[{self._rows + 1}B\r")
            self._rows = 0

    def _columns(self) -> int:
        with contextlib.suppress(OSError):  # the stream is no file
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def cut(text: str, columns: int) -> str:
    """Return as much of the beginning of `text` as fits into so many columns of a terminal."""
    used = 0
    for position, character in enumerate(text):
        used += width(character)
        if used > columns:
            return text[:position]
    return text


def width(character: str) -> int:
    """Return the columns of a character: 2 for wide ones as in Chinese, 0 for combining ones."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
