"""Prompts from a file or from standard input: one a line, or JSON lines with a request's fields."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import Request, RequestError
from .parsing import UsageError
from .values import shown

LONGEST = 1 << 26  # characters of a line; a request may hold pictures


@dataclass(frozen=True)
class Line:
    """The fields that one line sets."""

    fields: Mapping[str, Any]
    place: str = ""  # for messages


def read_lines(source: str) -> Iterator[Line]:
    """Yield the requests of a file, or of standard input for -, as they come."""
    if source != "-":
        yield from _parsed(_text(source).splitlines(), source)
        return
    stream = sys.stdin
    if stream is None:
        raise UsageError("--prompt-file - reads standard input, which is closed")
    try:
        yield from _parsed(iter(stream.readline, ""), "standard input")
    except (OSError, ValueError) as error:
        raise UsageError(f"standard input cannot be read as text: {_reason(error)}") from error


def fields_of(line: Line, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's fields: those of the line, and the command's for the others.

    A file's prompts stand in for the command's --prompt-embeds.
    """
    merged = {**fields, **line.fields}
    for name, rival in (("prompt", "prompt_embeds"), ("prompt_embeds", "prompt")):
        if line.place and name in line.fields and rival not in line.fields:
            merged.pop(rival, None)
    return merged


def request_of(line: Line, fields: Mapping[str, Any]) -> Request:
    """Return the request of a line; a message names the line."""
    try:
        return Request.from_dict({n: v for n, v in fields.items() if v is not None})
    except RequestError as error:
        raise UsageError(f"{line.place}: {error}" if line.place else str(error)) from error


def _text(source: str) -> str:
    if not source:
        raise UsageError("--prompt-file must name a file, or be - for standard input, not ''")
    try:
        return Path(source).expanduser().read_text("utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{shown(source)} cannot be read as text: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)


def _parsed(lines: Iterable[str], source: str) -> Iterator[Line]:
    for number, line in enumerate(lines, 1):
        text, place = line.strip(), f"{source}, line {number}"
        if len(text) > LONGEST:
            raise UsageError(f"{place} is longer than {LONGEST:,} characters")
        if not text or text.startswith("#"):
            continue
        yield Line(_object(text, place) if _is_json(text) else {"prompt": text}, place)


def _is_json(text: str) -> bool:
    """Return whether a line is meant as JSON: a prompt may begin with a brace as well."""
    return text.startswith("{") and text[1:].lstrip()[:1] in ('"', "}")


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: no valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{place}: no JSON object")
    return fields
