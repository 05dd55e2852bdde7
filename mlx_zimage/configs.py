"""Configs: a checkpoint's JSON, read into frozen dataclasses."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .checks import excerpt
from .errors import CheckpointError

Config = TypeVar("Config")
AGAIN = "copy the file again from the official checkpoint"
MAX_INTEGER = 2**24 - 1
"""The largest whole number in a config: far above any model's, and small enough to multiply."""


def read(cls: type[Config], data: Mapping[str, Any], where: str) -> Config:
    """Return a `cls` of `data`: unknown keys are ignored, a missing or mistyped one is an error."""
    values = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every Config is a dataclass
        if field.name in data:
            values[field.name] = _checked(field, data[field.name], where)
        elif field.default is dataclasses.MISSING:
            raise CheckpointError(f"{where} must hold '{field.name}', which is missing; {AGAIN}")
    return cls(**values)


def at_most(config: Any, limit: int, where: str, *names: str) -> None:
    """Raise for a count that no real model has, before that many layers are built."""
    for name in names:
        if getattr(config, name) > limit:
            raise CheckpointError(
                f"{where}: '{name}' may be at most {limit}, not {getattr(config, name)}; {AGAIN}"
            )


def _checked(field: "dataclasses.Field[Any]", value: Any, where: str) -> Any:
    kind: Any = field.type
    if isinstance(kind, types.UnionType):  # `int | None`
        if value is None:
            return None
        kind = typing.get_args(kind)[0]
    expected, holds = _RULES[kind]
    if not holds(value):
        raise CheckpointError(
            f"{where}: '{field.name}' must be {expected}, not {excerpt(value)}; {AGAIN}"
        )
    if kind is float:
        return float(value)
    return tuple(value) if isinstance(value, list | tuple) else value


def _positive(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_INTEGER


_RULES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: (f"a whole number from 1 to {MAX_INTEGER}", _positive),
    float: ("a number within 1e9 of 0", lambda v: type(v) in (int, float) and abs(v) <= 1e9),
    bool: ("true or false", lambda v: isinstance(v, bool)),
    str: ("a string", lambda v: isinstance(v, str)),
    dict[str, Any]: ("an object", lambda v: isinstance(v, dict)),
    tuple[str, ...]: (
        "a list of strings",
        lambda v: isinstance(v, list | tuple) and all(isinstance(item, str) for item in v),
    ),
    tuple[int, ...]: (
        f"a list of whole numbers from 1 to {MAX_INTEGER}",
        lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(map(_positive, v)),
    ),
}
