"""The contact sheet of a sweep, from the files of its pictures."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .. import contact_sheet
from .plans import Sheet

PIXELS = 64_000_000
"""Pixels that a sheet has at most, over all of its cells."""


def draw_sheet(sheet: Sheet, files: Sequence[Path]) -> Image.Image:
    """Return the sheet; `files` are in the order of drawing."""
    cells: list[Image.Image | None] = [None] * len(files)
    most = int((PIXELS / max(len(files), 1)) ** 0.5)
    for file, place in zip(files, sheet.places, strict=True):
        with Image.open(file) as image:
            image.thumbnail((most, most), Image.Resampling.LANCZOS)
            cells[place] = image.copy()
    cells += [None] * (-len(cells) % sheet.width)
    rows = [cells[start : start + sheet.width] for start in range(0, len(cells), sheet.width)]
    return contact_sheet(rows, sheet.rows, sheet.columns, sheet.title)
