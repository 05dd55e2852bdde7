"""Checks of single values: each returns the value in its stored form, or raises a RequestError.

A message states the rule, then quotes the value it got, cut to a length that fits one line.
"""

import itertools
import math
import numbers
import operator
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from .errors import RequestError

Value = TypeVar("Value", bound="str | int")

MAX_LEVELS = 1000
EXCERPT = 60  # characters of a value that a message quotes


def excerpt(value: object, limit: int = EXCERPT) -> str:
    """Return `repr(value)` on one line, cut to about `limit` characters.

    A long text is cut between words and ends with the number of characters that are not shown.
    """
    if isinstance(value, str):
        return _excerpt_of_text(value, limit)
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an integer of more digits than Python prints, or a broken __repr__
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def path_text(path: object, limit: int = 200) -> str:
    """Return a path for a message: as it is if it is short and printable, else quoted and cut."""
    text = str(path)
    return text if len(text) <= limit and text.isprintable() else excerpt(text)


def reason(error: BaseException) -> str:
    """Return what an exception says on one line, without the path that an OSError repeats."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def path(name: str, value: object) -> Path:
    """Return a path of a string or a path-like object that is not empty."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise RequestError(f"{name} must be a path, not {_with_type(value)}")
    if not os.fspath(value):
        raise RequestError(f"{name} must be a path, not an empty string")
    return Path(value)


def string(name: str, value: object) -> str:
    """Return `value` if it is a string of valid Unicode without NUL, which ends texts in C."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a string, not {_with_type(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{name} must be valid Unicode, not {excerpt(value)}: {error.reason}"
        ) from error
    if "\0" in value:
        raise RequestError(f"{name} must not hold a NUL character, as {excerpt(value)} does")
    return value


def strings(name: str, value: object) -> str | tuple[str, ...]:
    """Return one string, or a list of at least one as a tuple."""
    if not is_list(value):
        return string(name, value)
    if not value:
        raise RequestError(f"{name} must hold at least one string, not an empty list")
    return tuple(string(name, item) for item in value)


def integer(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`: an int or NumPy's like, no bool and no float."""
    try:
        result = operator.index(value)  # type: ignore[arg-type]  # others raise the TypeError
    except TypeError:
        result = low - 1
    if isinstance(value, bool) or not low <= result <= high:
        raise RequestError(
            f"{name} must be a whole number from {low} to {high}, not {excerpt(value)}"
        )
    return result


def integers(name: str, value: object, low: int, high: int) -> int | tuple[int, ...]:
    """Return one whole number, or a list of at least one as a tuple."""
    if not is_list(value):
        return integer(name, value, low, high)
    if not value:
        raise RequestError(f"{name} must hold at least one whole number, not an empty list")
    return tuple(integer(name, item, low, high) for item in value)


def number(name: str, value: object, low: float, high: float, note: str = "") -> float:
    """Return a finite number from `low` to `high` as a float; `note` explains the limits."""
    result = _as_float(value)
    if not low <= result <= high:
        raise RequestError(
            f"{name} must be a number from {low:g} to {high:g}{note}, not {excerpt(value)}"
        )
    return result


def one_of(name: str, value: object, choices: Collection[Value]) -> Value:
    """Return the one of `choices` that `value` is: of the same type, so that 4.0 is not 4."""
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    *others, last = map(str, choices)
    listed = f"{', '.join(others)} or {last}" if others else last
    raise RequestError(f"{name} must be {listed}, not {excerpt(value)}")


def schedule(name: str, value: object) -> str | tuple[float, ...]:
    """Return a schedule's name, or noise levels that fall from at most 1 to above 0."""
    if isinstance(value, str):
        return string(name, value)
    items = value.tolist() if hasattr(value, "tolist") else value
    items = itertools.islice(items, MAX_LEVELS + 1) if isinstance(items, Iterable) else ()
    levels = tuple(map(_as_float, items))
    valid = 0 < len(levels) <= MAX_LEVELS and all(0 < level <= 1 for level in levels)
    # They are used in float32, where different levels may be equal, and small ones 0.
    if not valid or not (np.diff(np.array((*levels, 0), np.float32)) < 0).all():
        raise RequestError(
            f"{name} must be a name or at most {MAX_LEVELS} noise levels that fall from at most 1 "
            f"to above 0, not {excerpt(value)}"
        )
    return levels


def array(name: str, value: object, ndim: int) -> np.ndarray:
    """Return a float32 copy that cannot be written to, of an array of finite real numbers."""
    try:
        values = np.asarray(from_mlx(value))
        if values.dtype.kind not in "fiu":
            raise RequestError(f"{name} must be an array of real numbers, not of {values.dtype}")
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused below
            result = np.array(values, np.float32)
    except RequestError:
        raise
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise RequestError(f"{name} must be an array of numbers: {reason(error)}") from error
    if result.ndim != ndim or not result.size:
        raise RequestError(f"{name} must have {ndim} dimensions, not the shape {result.shape}")
    if not np.isfinite(result).all():
        raise RequestError(f"{name} must be finite; some values are NaN or infinite")
    result.flags.writeable = False
    return result


def from_mlx(value: object) -> Any:
    """Return MLX's arrays in float32, as NumPy has no bfloat16, and everything else as it is."""
    if not type(value).__module__.startswith("mlx"):
        return value
    import mlx.core as mx

    return value.astype(mx.float32) if isinstance(value, mx.array) else value


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Return whether a value is a list, tuple or other sequence, but no string and no bytes."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _excerpt_of_text(text: str, limit: int) -> str:
    if len(text) <= limit and len(repr(text)) <= limit + 2:
        return repr(text)
    end = next(n for n in range(min(limit, len(text)), -1, -1) if len(repr(text[:n])) <= limit + 2)
    space = text.rfind(" ", end // 2, end)
    start = text[: space if space > 0 else end]
    return f"{start!r}... (+{len(text) - len(start):,} characters)"


def _with_type(value: object) -> str:
    """Return a value for a message, with its type where its text alone does not show it."""
    plain = value is None or isinstance(value, bool | int | float | bytes)
    return excerpt(value) if plain else f"a {type(value).__name__}: {excerpt(value)}"


def _as_float(value: object) -> float:
    """Return a real number as a float, and NaN for everything else: no string and no bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def shape_text(array: Any) -> str:
    """Return an array's shape and type for a repr: <1x16x64x64 float32>."""
    dtype = str(array.dtype).rpartition(".")[2]
    return f"<{'x'.join(map(str, array.shape))} {dtype}>"
