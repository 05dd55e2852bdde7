"""The command line: parse, call the library, show what happens.

Exit status: 0 done, 1 an error in one line on standard error, 2 wrong usage, 130 interrupted.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from ..errors import ZImageError
from .convert import convert
from .generate import generate

COMMANDS: dict[str, Callable[..., None]] = {"generate": generate, "convert": convert}
SEVERAL = ("--seed",)
"""Options that take values until the next option: `--seed 1 2 3`."""


def main() -> None:
    """The `mlx-zimage` script: its first argument names the command."""
    app = _app()
    for name, command in COMMANDS.items():
        app.command(name)(_guarded(command))
    app(args=_spread(sys.argv[1:]))


def run(name: str) -> None:
    """One command as a program of its own."""
    app = _app()
    app.command()(_guarded(COMMANDS[name]))
    app(args=_spread(sys.argv[1:]))


def _app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ZImageError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from error

    return guarded


def _spread(arguments: Sequence[str]) -> list[str]:
    """Repeat an option before each of its values, as the parser wants it."""
    spread: list[str] = []
    option = ""  # the one that the next value belongs to
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in SEVERAL else ""
        elif option and spread[-1] != option:
            spread.append(option)
        spread.append(argument)
    return spread
