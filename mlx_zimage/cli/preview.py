"""Previews of each step: in a file that is replaced, or within a terminal's text."""

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from PIL import Image

from .. import RequestError, Step, check_output, save_picture
from .parsing import UsageError
from .progress import Reporter

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
ROWS = 16  # of a terminal, that a picture takes
CHUNK = 4096  # characters of base64 in one of kitty's escapes
PLACE = 4200  # the first number of our pictures in the terminal
KITTY = ("ghostty", "kitty")
ITERM = ("iTerm.app", "WezTerm", "rio", "vscode", "mintty")


class Preview(Protocol):
    def show(self, step: Step) -> None:
        """Show what a step has reached."""


class NoPreview:
    def show(self, step: Step) -> None:
        pass


class FilePreview:
    """A file that is written anew after each step. A failure is told once and stops nothing."""

    def __init__(self, file: Path, report: Reporter):
        check_output(file, ENDINGS, overwrite=True)
        self._file, self._report, self._works = file, report, True

    def show(self, step: Step) -> None:
        if not self._works:
            return
        try:
            save_picture(step.preview(), self._file, None, overwrite=True)
        except RequestError as error:
            self._works = False
            self._report.warn(f"no more previews: {error}")


class TerminalPreview:
    """A picture below the line of progress."""

    def __init__(self, protocol: str, report: Reporter):
        self._protocol, self._report = protocol, report

    def show(self, step: Step) -> None:
        picture = step.preview()
        is_kitty = self._protocol == "kitty"
        escape = kitty_escape(picture, step.job) if is_kitty else iterm_escape(picture)
        self._report.picture(escape, ROWS)


def preview_to(target: str | None, report: Reporter) -> Preview:
    """Return the preview that --preview asks for."""
    if target is None:
        return NoPreview()
    if target != "-":
        if not target:
            raise UsageError("--preview must name a file, or be - for the terminal, not ''")
        return FilePreview(Path(target), report)
    protocol = terminal_protocol(os.environ)
    if protocol is None or not report.live:
        raise UsageError(
            "--preview - needs a terminal that shows pictures (iTerm2, kitty, WezTerm, Ghostty); "
            "give --preview FILE"
        )
    return TerminalPreview(protocol, report)


def terminal_protocol(environment: Mapping[str, str]) -> str | None:
    """Return how the terminal takes pictures: "kitty", "iterm", or None where it does not."""
    if environment.get("TMUX") or environment.get("STY"):
        return None  # they do not pass pictures on
    program = environment.get("TERM_PROGRAM", "")
    term = environment.get("TERM", "")
    if environment.get("KITTY_WINDOW_ID") or program in KITTY or term.startswith("xterm-kitty"):
        return "kitty"
    if program in ITERM or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return None


def iterm_escape(picture: Image.Image) -> str:
    """Return what shows a picture at the cursor: https://iterm2.com/documentation-images.html."""
    data = _png(picture)
    options = f"inline=1;size={len(data)};height={ROWS};preserveAspectRatio=1"
    return f"\x1b]1337;File={options}:{base64.b64encode(data).decode()}\a"


def kitty_escape(picture: Image.Image, job: int = 0) -> str:
    """Return the same for kitty: https://sw.kovidgoyal.net/kitty/graphics-protocol/.

    The pictures of one job have one number, so that each takes the place of the last.
    """
    text = base64.b64encode(_png(picture)).decode()
    chunks = [text[n : n + CHUNK] for n in range(0, len(text), CHUNK)]
    first = f"a=T,f=100,q=2,C=1,i={PLACE + job},p=1,r={ROWS}"
    escapes = []
    for number, chunk in enumerate(chunks):
        head = f"{first}," if number == 0 else ""
        escapes.append(f"\x1b_G{head}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(escapes)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
