"""The command line: parse, call the library, show what happens.

Exit status: 0 done, 1 an error in one line on standard error, 2 wrong usage, 130 interrupted.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from ..errors import ZImageError
from .bench import bench
from .convert import convert, verify
from .generate import generate
from .keep import cache, download

COMMANDS: dict[str, Callable[..., None]] = {
    "generate": generate,
    "convert": convert,
    "verify": verify,
    "download": download,
    "cache": cache,
    "bench": bench,
}
SEVERAL = ("--seed", "--size")
"""Options that take values until the next option: `--seed 1 2 3`."""


def main() -> None:
    """The `mlx-zimage` script: its first argument names the command."""
    _run(COMMANDS)


def run(name: str, *others: str) -> None:
    """One command as a program of its own; `others` are known by their names."""
    if sys.argv[1:2] and sys.argv[1] in others:
        name = sys.argv.pop(1)
    _run({name: COMMANDS[name]})


def _run(commands: dict[str, Callable[..., None]]) -> None:
    _open_standard_files()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    for name, command in commands.items():
        app.command(name)(_guarded(command))
    try:
        app(args=_spread(sys.argv[1:]))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt


def _open_standard_files() -> None:
    """Where the shell closed them: else the next file opened takes their place."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="backslashreplace")


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ZImageError as error:
            line = str(error).replace("\n", "\\n")  # what it quotes may hold some
            typer.echo(f"error: {line}", err=True)
            raise typer.Exit(1) from error
        except BrokenPipeError:
            raise  # the reader has seen enough: typer ends quietly
        except OSError as error:
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
