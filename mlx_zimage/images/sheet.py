"""Contact sheets: pictures in rows and columns under labels, as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..checks import excerpt
from ..errors import RequestError

Cells = Sequence[Sequence[Image.Image | None]]
"""Rows of pictures; None where there is none yet."""

LARGEST = 512  # pixels: the longer side that a picture has on a sheet
GAP = 12  # pixels between pictures
TEXT = 15  # pixels: the height of a label's letters
LINES = 4  # that a label may have; the rest is cut
NARROWEST = 96  # pixels: the least width that a label gets
PAPER, INK, FAINT = "#ffffff", "#1a1a1a", "#b8b8b8"
WIDE_FONTS = (
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "Arial Unicode.ttf",
)
"""Fonts with Chinese, Japanese and Korean letters, which Pillow's lacks, by their usual names."""


def contact_sheet(
    cells: Cells,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    *,
    largest: int | None = LARGEST,
) -> Image.Image:
    """Return one picture of all cells, with their labels at the left and above.

    A picture whose longer side is over `largest` pixels is made smaller; None keeps its size. An
    empty list of labels leaves their place out.
    """
    check_cells(cells, row_labels, column_labels)
    pictures = [[None if cell is None else _shown(cell, largest) for cell in row] for row in cells]
    return _Layout.of(pictures, row_labels, column_labels, title).draw()


def check_cells(
    cells: Cells, row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()
) -> None:
    """Refuse rows of different lengths, no rows at all, and labels of another number."""
    lengths = {len(row) for row in cells}
    if not cells or lengths == {0}:
        raise RequestError("a sheet must have at least one picture, not none")
    if len(lengths) > 1:
        raise RequestError(f"the rows of a sheet must be equally long, not {sorted(lengths)}")
    _check_labels("row_labels", row_labels, len(cells))
    _check_labels("column_labels", column_labels, len(cells[0]))


def _check_labels(name: str, labels: Sequence[str], count: int) -> None:
    if isinstance(labels, str) or (labels and len(labels) != count):
        raise RequestError(f"{name} must be a list of {count}, or empty, not {excerpt(labels)}")


def one_line(label: object) -> str:
    """Return a label's text on one line, without characters that cannot be shown."""
    text = " ".join(str(label).encode("utf-8", "replace").decode("utf-8").split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


@dataclass(frozen=True)
class _Layout:
    """A sheet's pictures and texts, and the room that each column and row takes."""

    pictures: Sequence[Sequence[Image.Image | None]]
    title: list[str]
    columns: list[list[str]]  # the lines of each column's label
    rows: list[list[str]]
    margin: int  # pixels at the left, for the rows' labels
    widths: list[int]
    heights: list[int]

    @classmethod
    def of(
        cls,
        pictures: Sequence[Sequence[Image.Image | None]],
        row_labels: Sequence[str],
        column_labels: Sequence[str],
        title: str,
    ) -> "_Layout":
        sizes = [[cell.size if cell else (0, 0) for cell in row] for row in pictures]
        usual = max(max(size) for row in sizes for size in row) or NARROWEST
        widths = [max(w for w, _ in column) or usual for column in zip(*sizes, strict=True)]
        heights = [max(h for _, h in row) or usual for row in sizes]
        widths = [max(width, NARROWEST) for width in widths]
        room = max(2 * NARROWEST, usual // 2) if row_labels else 0
        rows = [wrapped(label, room) for label in row_labels]
        margin = max((text_width(line) for lines in rows for line in lines), default=0)
        columns = [
            wrapped(t, w) for t, w in zip(column_labels, widths, strict=False)
        ]  # perhaps none
        heights = [
            max(height, len(lines) * line_height())
            for height, lines in zip(heights, rows or [[]] * len(heights), strict=True)
        ]
        across = sum(widths) + GAP * len(widths) + margin
        return cls(pictures, wrapped(title, across), columns, rows, margin, widths, heights)

    def draw(self) -> Image.Image:
        left = GAP + (self.margin + GAP if self.margin else 0)
        lines = len(self.title), max(map(len, self.columns), default=0)
        above = GAP + sum(n * line_height() + GAP // 2 for n in lines if n)
        size = (
            left + sum(self.widths) + GAP * len(self.widths),
            above + sum(self.heights) + GAP * len(self.heights),
        )
        sheet = Image.new("RGB", size, PAPER)
        pen = ImageDraw.Draw(sheet)
        write(pen, (GAP, GAP), self.title)
        y = above
        for number, (row, height) in enumerate(zip(self.pictures, self.heights, strict=True)):
            x = left
            if self.rows:
                write(pen, (GAP, y), self.rows[number])
            for picture, width in zip(row, self.widths, strict=True):
                _place(sheet, pen, picture, (x, y, width, height))
                x += width + GAP
            y += height + GAP
        x = left
        for texts, width in zip(self.columns, self.widths, strict=False):  # perhaps none
            write(pen, (x, above - GAP // 2 - len(texts) * line_height()), texts)
            x += width + GAP
        return sheet


def _shown(picture: Image.Image, largest: int | None) -> Image.Image:
    """Return a picture as it is shown: opaque, and not over `largest` pixels along a side."""
    shown = picture
    if picture.mode != "RGB":
        clear = picture.convert("RGBA")
        shown = Image.new("RGBA", clear.size, PAPER)
        shown.alpha_composite(clear)
        shown = shown.convert("RGB")
    if largest is None or max(shown.size) <= largest:
        return shown
    scale = largest / max(shown.size)
    width, height = (max(round(side * scale), 1) for side in shown.size)
    return shown.resize((width, height), Image.Resampling.LANCZOS)


def _place(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    picture: Image.Image | None,
    box: tuple[int, int, int, int],
) -> None:
    """Put a picture into its box, or an empty frame for one that is missing."""
    x, y, width, height = box
    if picture is not None:
        sheet.paste(picture, (x, y))
        return
    pen.rectangle((x, y, x + width - 1, y + height - 1), outline=FAINT)
    pen.line((x, y, x + width - 1, y + height - 1), fill=FAINT)


@lru_cache
def _fonts() -> tuple[Any, Any]:
    """Return Pillow's own font, and one for the letters that it lacks."""
    usual = ImageFont.load_default(TEXT)
    for name in WIDE_FONTS:
        try:
            return usual, ImageFont.truetype(name, TEXT)
        except OSError:
            continue
    return usual, usual


def _font(text: str) -> Any:
    return _fonts()[any(ord(letter) > 0x2E7F for letter in text)]


def _drawable(text: str, font: Any) -> str:
    """Return text that the font can draw: without FreeType, Pillow's has Latin letters alone."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return text
    return text.encode("latin-1", "replace").decode("latin-1")


def line_height() -> int:
    return TEXT * 4 // 3


def text_width(text: str) -> int:
    """Return the pixels that a text takes across."""
    font = _font(text)
    return -int(-font.getlength(_drawable(text, font)) // 1)


def wrapped(label: object, width: int) -> list[str]:
    """Return a label's lines, at most LINES of at most `width` pixels; a cut one ends in dots."""
    rest = one_line(label)
    lines: list[str] = []
    while rest and len(lines) < LINES:
        end = _fitting(rest, width)
        if end < len(rest) and len(lines) == LINES - 1:
            lines.append(rest[: max(_fitting(rest, width - text_width("...")), 1)].rstrip() + "...")
            break
        space = rest.rfind(" ", 1, end + 1)
        end = space if end < len(rest) and space > 0 else end
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return lines


def _fitting(text: str, width: int) -> int:
    """Return how many of a text's first letters fit, at least one."""
    low, high = 1, min(len(text), max(width, 1))  # no letter is narrower than a pixel
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(text[:middle]) <= width else (low, middle - 1)
    return low


def write(pen: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str]) -> None:
    """Write lines below each other from their upper left corner."""
    x, y = place
    for line in lines:
        font = _font(line)
        pen.text((x, y), _drawable(line, font), fill=INK, font=font)
        y += line_height()
