"""`info`: how a picture was made; without one, what this machine is and what fits on it."""

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import DownloadError, list_copies, locate, read_metadata
from ..bench.fits import Fit, fits
from ..bench.machine import describe
from . import options as o
from .progress import reporter

PACKAGES = ("mlx", "numpy", "pillow", "safetensors", "tokenizers", "huggingface_hub", "typer")
MODELS = ("turbo", "base")

File = Annotated[
    Path | None,
    typer.Argument(
        help="A picture that generate wrote. Default: this machine.",
        metavar="FILE",
        show_default=False,
    ),
]


def info(file: File = None, json: o.Json = False) -> None:
    """Show how a picture was made, or what this machine is.

    Without FILE: the machine, versions, the models that are on it, and which precision and size
    of the real model fit here. That is what a bug report needs; it names no user and no host.
    """
    if file is None:
        _show_machine(json)
        return
    metadata = read_metadata(file)
    reporter(json).result("\n".join(_lines(metadata)), "info", file=str(file), **metadata)


def _show_machine(as_json: bool) -> None:
    machine, rows = describe(), fits()
    versions = {name: _version(name) for name in PACKAGES}
    models = {name: _state(name) for name in MODELS}
    copies = [{"name": copy.name, "bytes": copy.size} for copy in list_copies()]
    text = [
        f"mlx-zimage   {machine['mlx_zimage']}, Python {machine['python']}, {machine['os']}",
        f"machine      {machine['chip']}, {machine['cores']} cores, {machine['memory_gb']} GB",
        f"device       {_device(machine)}, {machine['device_memory_gb']} GB",
        f"packages     {', '.join(f'{name} {number}' for name, number in versions.items())}",
        f"models       {', '.join(f'{name}: {state}' for name, state in models.items())}",
        f"copies       {', '.join(_copy_text(copy) for copy in copies) or 'none'}",
        "",
        *_table(rows),
    ]
    reporter(as_json).result(
        "\n".join(text),
        "machine",
        **machine,
        packages=versions,
        models=models,
        copies=copies,
        fits=[dataclasses.asdict(row) for row in rows],
    )


def _table(rows: list[Fit]) -> list[str]:
    """Return the memory mode and the peak of each precision (down) and size (across)."""
    sides = sorted({row.side for row in rows})
    lines = [["fits here", *(f"{side}x{side}" for side in sides)]]
    for bits in dict.fromkeys(row.quantize for row in rows):
        cells = {row.side: row for row in rows if row.quantize == bits}
        name = "16 bit" if bits is None else f"--q {bits}"
        lines.append([name, *(_fit_text(cells[side]) for side in sides)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _fit_text(row: Fit) -> str:
    size = f"{row.peak / 1e9:.1f} GB"
    return f"no ({size})" if row.memory is None else f"{row.memory} {size}"


def _device(machine: dict[str, Any]) -> str:
    names = [machine["device"], machine["device_name"], machine["architecture"]]
    return " ".join(dict.fromkeys(name for name in names if name))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _state(name: str) -> str:
    try:
        locate(name)
    except DownloadError as error:
        return "incomplete" if "incomplete" in str(error) else "not here"
    return "here"


def _copy_text(copy: dict[str, Any]) -> str:
    return f"{copy['name']} ({copy['bytes'] / 1e9:.1f} GB)"


def _lines(metadata: dict[str, Any]) -> list[str]:
    request = metadata.get("request")
    fields = {**(request if isinstance(request, dict) else {}), **metadata}
    fields.pop("request", None)
    width = max(map(len, fields), default=0)
    return [f"{n:{width}}  {_text(value)}" for n, value in fields.items() if value is not None]


def _text(value: Any) -> str:
    """Return a value on one line; of an array its shape, of a picture its size."""
    if isinstance(value, dict) and "shape" in value:
        return f"array, {'x'.join(map(str, value['shape']))}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    text = str(value)
    if text.startswith("data:image/"):
        return f"picture, {len(text) * 3 // 4:,} bytes"
    return text if text.isprintable() else repr(text)
