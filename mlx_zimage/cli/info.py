"""`info`: how a picture was made."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import read_metadata
from . import options as o
from .progress import reporter


def info(
    file: Annotated[Path, typer.Argument(help="A picture that generate wrote.", metavar="FILE")],
    json: o.Json = False,
) -> None:
    """Show how a picture was made."""
    metadata = read_metadata(file)
    reporter(json).result("\n".join(_lines(metadata)), "info", file=str(file), **metadata)


def _lines(metadata: dict[str, Any]) -> list[str]:
    request = metadata.get("request")
    fields = {**(request if isinstance(request, dict) else {}), **metadata}
    fields.pop("request", None)
    width = max(map(len, fields), default=0)
    return [f"{n:{width}}  {_text(value)}" for n, value in fields.items() if value is not None]


def _text(value: Any) -> str:
    """Return a value on one line; of an array its shape."""
    if isinstance(value, dict) and "shape" in value:
        return f"array, {'x'.join(map(str, value['shape']))}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    text = str(value)
    return text if text.isprintable() else repr(text)
