"""Sweeps: one request with several values of some fields, as the cells of a contact sheet.

A sweep is planned from templates and axes. Each cell is a request and the settings of the model
that draws it; cells of the same settings form a group, for which a model is loaded once. The file
of a cell is named after its values, so that a sweep that was stopped can go on.
"""

import itertools
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from .checks import excerpt, path_text
from .errors import RequestError
from .files import write_atomically
from .images.files import save_picture
from .images.page import sheet_page
from .images.sheet import contact_sheet
from .replay import GUIDED, replay
from .request import Request

MOST_CELLS = 1000
NAME = 100  # characters of a file's name
WIDEST = 8  # cells of a row where a sweep has one axis
SETTINGS = ("model", "quantize", "dtype", "loras")
"""Axes that choose the model rather than a field of the request."""
ROWS_FIRST = ("prompt", "negative_prompt", "seed")
"""Fields that go down the sheet rather than across, if another axis is there."""
SHEET, PAGE, DATA = "sheet.png", "sheet.html", "sweep.json"
"""The files that a sweep writes beside its pictures."""
LARGE = ("image", "mask", "latents", "prompt_embeds")
"""Fields that the data leave out."""
PIXELS = 64_000_000  # that a sheet has at most, over all of its cells


@dataclass(frozen=True)
class SweepAxis:
    """The values of one field. A value may set several fields, as a size sets two."""

    name: str
    values: tuple[Mapping[str, Any], ...]  # the fields that each value sets
    labels: tuple[str, ...]

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> "SweepAxis":
        """Build the axis of one field."""
        word = name.replace("_", " ")
        labels = [f"{word} {_label(value)}" for value in values]
        return cls(name, tuple({name: value} for value in values), tuple(labels))

    @classmethod
    def of_texts(cls, name: str, templates: Sequence[str]) -> "SweepAxis":
        """Build the axis of all texts that some templates stand for, labelled by what differs."""
        expanded = [pair for template in templates for pair in expand(template)]
        by_choice = len(templates) == 1 and len(expanded) > 1
        labels = [", ".join(choice) if by_choice else text for text, choice in expanded]
        return cls(name, tuple({name: text} for text, _ in expanded), tuple(labels))

    def __post_init__(self) -> None:
        if not self.values:
            raise RequestError(f"a sweep needs at least one value of {self.name}, not none")
        for label in self.labels:
            if self.labels.count(label) > 1:
                raise RequestError(f"a sweep needs different values of {self.name}: {label} twice")


@dataclass(frozen=True)
class SweepCell:
    """One picture of a sweep."""

    number: int
    labels: tuple[str, ...]  # one of each axis
    settings: Mapping[str, Any]  # of the model
    request: Request

    @property
    def name(self) -> str:
        """The name of its file, without an ending: from its labels alone."""
        name = "_".join(map(_slug, self.labels)) or "picture"
        return name if len(name) <= NAME else f"{name[:NAME]}-{self.code}"

    @property
    def code(self) -> str:
        """A short code of the labels, for names that would be cut or the same."""
        return f"{zlib.crc32(repr(self.labels).encode('utf-8', 'replace')):08x}"

    def is_drawn(self, file: Path) -> bool:
        """Return whether a file holds this cell's picture; raise if it holds another one."""
        if not file.exists():
            return False
        found = replay(file)
        loras = [(str(lora.source), lora.scale) for lora in self.settings.get("loras", ())]
        others = {n: v for n, v in self.settings.items() if n != "loras" and v is not None}
        same = all(found.metadata.get(name) == value for name, value in others.items())
        if (
            same
            and [(lora.source, lora.scale) for lora in found.loras] == loras
            and found.agrees(self.request)
        ):
            return True
        raise RequestError(
            f"{path_text(file)} holds a picture of another request; name another folder, or pass "
            "overwrite=True"
        )


@dataclass(frozen=True)
class Sweep:
    """All cells, row by row. `rows` and `columns` are the axes down and across."""

    rows: tuple[SweepAxis, ...]
    columns: tuple[SweepAxis, ...]
    cells: tuple[SweepCell, ...]

    @classmethod
    def plan(cls, fields: Mapping[str, Any], axes: Sequence[SweepAxis]) -> "Sweep":
        """Lay out the axes and build every cell's request, or raise what is wrong with one.

        `fields` are those of the request that do not vary, and the settings of the model.
        """
        count = math.prod(len(axis.values) for axis in axes)
        if count > MOST_CELLS:
            each = " x ".join(str(len(axis.values)) for axis in axes if len(axis.values) > 1)
            raise RequestError(
                f"a sweep may have at most {MOST_CELLS} pictures, not {each} = {count:,}"
            )
        used = [axis for axis in axes if len(axis.values) > 1]
        used.sort(key=_place)
        split = _split([len(axis.values) for axis in used])
        rows, columns = tuple(used[:split]), tuple(used[split:])
        chosen = itertools.product(*(range(len(axis.values)) for axis in used))
        constant: dict[str, Any] = dict(fields)
        for axis in axes:
            if len(axis.values) == 1:
                constant |= axis.values[0]
        cells = []
        for number, places in enumerate(chosen):
            pairs = list(zip(used, places, strict=True))
            varied = {n: v for axis, i in pairs for n, v in axis.values[i].items()}
            cells.append(_cell(number, tuple(a.labels[i] for a, i in pairs), constant, varied))
        return cls(rows, columns, tuple(cells))

    @cached_property
    def groups(self) -> dict[tuple[tuple[str, Any], ...], list[SweepCell]]:
        """The cells of each model, by its settings."""
        groups: dict[tuple[tuple[str, Any], ...], list[SweepCell]] = {}
        for cell in self.cells:
            groups.setdefault(tuple(cell.settings.items()), []).append(cell)
        return groups

    def files(self, folder: Path) -> list[Path]:
        """Return the file of each cell's picture in a folder."""
        names = [cell.name for cell in self.cells]
        return [
            folder / f"{name if names.count(name) == 1 else f'{name}-{cell.code}'}.png"
            for name, cell in zip(names, self.cells, strict=True)
        ]

    @property
    def width(self) -> int:
        """The number of columns."""
        count = math.prod(len(axis.values) for axis in self.columns)
        if self.rows or count <= WIDEST:
            return count
        return math.ceil(math.sqrt(count))

    @property
    def column_labels(self) -> list[str]:
        """The label above each column; none where one axis fills several rows."""
        labels = _products(self.columns)
        return labels if self.columns and len(labels) == self.width else []

    @property
    def row_labels(self) -> list[str]:
        """The label beside each row."""
        if self.rows:
            return _products(self.rows)
        labels = _products(self.columns)
        if len(labels) <= self.width:
            return []
        starts = range(0, len(labels), self.width)
        ends = [min(start + self.width, len(labels)) - 1 for start in starts]
        return [f"{labels[a]} to {labels[b]}" for a, b in zip(starts, ends, strict=True)]

    def grid(self, files: Sequence[Path]) -> list[list[Image.Image | None]]:
        """Return the rows of pictures, read from one file for each cell; None for a missing one.

        Large pictures of many cells are made smaller, so that the sheet can still be opened.
        """
        most = int(math.sqrt(PIXELS / len(self.cells)))
        pictures = [_read(file, most) for file in files]
        pictures += [None] * (-len(pictures) % self.width)
        return [pictures[n : n + self.width] for n in range(0, len(pictures), self.width)]

    def to_dict(self, files: Sequence[Path], seconds: Mapping[str, float]) -> dict[str, Any]:
        """Return the sweep for JSON: its axes, and each cell's file, settings and request.

        `seconds` holds how long the pictures took, by the names of their files.
        """
        axes = [*self.rows, *self.columns]
        return {
            "axes": [{"name": axis.name, "labels": list(axis.labels)} for axis in axes],
            "cells": [
                {
                    "file": f"{file.parent.name}/{file.name}",
                    "labels": list(cell.labels),
                    "seconds": seconds.get(file.name),
                    **{name: _plain(value) for name, value in cell.settings.items()},
                    "request": cell.request.to_dict(),
                }
                for cell, file in zip(self.cells, files, strict=True)
            ],
        }

    def save(
        self, folder: Path, files: Sequence[Path], title: str, seconds: Mapping[str, float]
    ) -> None:
        """Write the contact sheet, as a picture and as a page, and the data."""
        grid, rows, columns = self.grid(files), self.row_labels, self.column_labels
        sheet = contact_sheet(grid, rows, columns, title)
        save_picture(sheet, folder / SHEET, None, overwrite=True)
        data = self.to_dict(files, seconds)
        for cell in data["cells"]:  # pictures and arrays would make the page large
            cell["request"] = {n: v for n, v in cell["request"].items() if n not in LARGE}
        page = sheet_page(grid, rows, columns, title, data)
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        for name, content in ((PAGE, page), (DATA, text)):
            write_atomically(folder / name, partial(_write, content), overwrite=True)

    @staticmethod
    def read_seconds(folder: Path) -> dict[str, float]:
        """Return how long the pictures of an earlier run took, by the names of their files."""
        try:
            cells = json.loads((folder / DATA).read_text("utf-8"))["cells"]
            return {Path(c["file"]).name: float(c["seconds"]) for c in cells if c["seconds"]}
        except (OSError, ValueError, TypeError, KeyError):
            return {}


def expand(template: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every text that a template such as "a {red|blue} fox" stands for, and its choices.

    Braces without a | are left as they are.
    """
    pieces = re.split(r"\{([^{}]*\|[^{}]*)\}", template)
    groups = [piece.split("|") for piece in pieces[1::2]]
    if math.prod(map(len, groups)) > MOST_CELLS:
        raise RequestError(f"a sweep may have at most {MOST_CELLS} pictures")
    for choice in itertools.product(*groups):
        words = iter(choice)
        yield "".join(p if n % 2 == 0 else next(words) for n, p in enumerate(pieces)), choice


def _cell(
    number: int, labels: tuple[str, ...], constant: Mapping[str, Any], varied: Mapping[str, Any]
) -> SweepCell:
    fields = {**constant, **varied}
    settings = {name: fields.pop(name) for name in SETTINGS if name in fields}
    if "guidance" in varied and not varied["guidance"] and fields.get("nag") is None:
        fields = {name: value for name, value in fields.items() if name not in GUIDED}
    return SweepCell(number, labels, settings, Request(**fields))


def _plain(value: Any) -> Any:
    """Return a setting for JSON."""
    return [*map(str, value)] if isinstance(value, tuple) else value


def _products(axes: Sequence[SweepAxis]) -> list[str]:
    """Return a label for each combination of some axes' values."""
    return [", ".join(labels) for labels in itertools.product(*(axis.labels for axis in axes))]


def _split(lengths: Sequence[int]) -> int:
    """Return how many of the axes go down, so that a sheet is about as wide as it is high."""
    if len(lengths) < 2:
        return 0

    def unevenness(split: int) -> float:
        return abs(math.log(math.prod(lengths[:split]) / math.prod(lengths[split:])))

    return min(range(1, len(lengths)), key=unevenness)


def _place(axis: SweepAxis) -> int:
    """Return an axis' place: the first ones go down, the last ones across."""
    return ROWS_FIRST.index(axis.name) if axis.name in ROWS_FIRST else len(ROWS_FIRST)


def _label(value: Any) -> str:
    if value is None:
        return "as stored"
    if isinstance(value, float):
        return f"{value:g}"
    return excerpt(value).strip("'") if isinstance(value, str) else str(value)


def _slug(label: str) -> str:
    """Return a label for a file's name."""
    return re.sub(r"[^\w.]+", "-", label.lower()).strip("-.")


def _write(content: str, file: BinaryIO) -> None:
    file.write(content.encode("utf-8", "replace"))


def _read(file: Path, most: int) -> Image.Image | None:
    if not file.exists():
        return None
    try:
        with Image.open(file) as image:
            image.load()
            if max(image.size) > most:
                image.thumbnail((most, most), Image.Resampling.LANCZOS)
            return image.copy()
    except OSError as error:
        raise RequestError(f"{path_text(file)} cannot be read as a picture") from error
