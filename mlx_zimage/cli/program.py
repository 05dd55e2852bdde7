"""The program around the commands: its streams, Ctrl-C, errors in one line, and exit status."""

import contextlib
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from .. import PromptTruncatedWarning, ZImageError
from ..linux import keep_freed_memory
from .options import Version
from .parsing import Command, UsageError
from .words import in_options

COMMANDS = {
    "generate": "generate",
    "sweep": "sweep",
    "train": "train",
    "serve": "serve",
    "mcp": "mcp",
    "compare": "compare",
    "convert": "convert",
    "verify": "verify",
    "download": "download",
    "cache": "cache",
    "loras": "loras",
    "info": "info",
    "bench": "bench",
}
"""The module of each command; it is imported when the command is named."""
EXAMPLES = {
    "generate": """\
"a red fox in the snow" --q 4
"a red fox" --size 1280x720 --seed 1-4 -o foxes/
"a red circle on blue" --model demo --seed 7
""",
    "sweep": """\
"a red fox" --q 4 --steps 4,8 --seed 1-3 -o foxes
"a {red|blue} {fox|cat}" --q 4
"a red circle on blue" --model demo --steps 1,3,6,8
""",
    "train": """\
photos/ style.safetensors --q 8
photos/ style.safetensors --q 8 --resume
photos/ style.safetensors --estimate
""",
    "serve": """\
--model demo --open
--q 4
--q 4 --host 0.0.0.0 --token new --allow-host mac.local
""",
    "mcp": """\
--q 4 --allow-dir ~/Pictures
--server http://127.0.0.1:8765
--q 4 --print-config
""",
    "compare": "first.png second.png\nfirst.png second.png -o both.png\n",
    "convert": """\
turbo turbo-4bit --q 4
turbo --plan --q 4 --q-text-encoder 8
""",
    "verify": "turbo-4bit\nturbo --against turbo\n",
    "download": "turbo\n",
    "cache": "list\nremove --all\n",
    "loras": "style.safetensors\nloras/ --json\n",
    "info": "fox.png\n--json\n",
    "bench": "--q 4 --size 512 1024 -o report.json\n--model turbo --q 4\n",
}
"""Arguments of each command that its help ends with."""
PROGRAM = "mlx-zimage"
"""The name that completion is for."""
COMPLETION = ("--install-completion", "--show-completion")
Install = Annotated[
    str | None,
    typer.Option(help="Install completion for zsh, bash or fish.", metavar="[SHELL]"),
]
Show = Annotated[
    str | None,
    typer.Option(help="Show the script of that completion.", metavar="[SHELL]"),
]
USAGE: Any = typer.BadParameter.__bases__[0]
"""The base class of the parser's errors; Typer has no name for it."""
NO_TEXT_FILE = (OSError, ValueError)


def main(*names: str) -> NoReturn:
    """Run the command line of this process: every command, or the first of `names` alone.

    The other `names` are reached by naming them first.
    """
    keep_freed_memory()
    _open_standard_files()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = run(sys.argv[1:], *names)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    sys.exit(status)


def run(arguments: Sequence[str], *names: str) -> int:
    """Run one command and return its exit status. Every error is printed in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PromptTruncatedWarning)  # an event says the same
            status = _call(list(arguments), names)
        sys.stdout.flush()
        return status
    except USAGE as error:
        return _fail(2, error.format_message())
    except ZImageError as error:
        return _fail(1, str(error))
    except BrokenPipeError:  # the reader has seen enough
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        place = f"{error.filename}: " if error.filename else ""
        return _fail(1, f"{place}{error.strerror or error}")
    except (KeyboardInterrupt, typer.Abort):
        return _fail(130, "interrupted", "")


def _call(arguments: list[str], names: Sequence[str]) -> int:
    is_one = bool(names)
    if not is_one and arguments[:1] and arguments[0] in COMPLETION:
        return _complete(arguments)
    if is_one:
        name = arguments.pop(0) if arguments[:1] and arguments[0] in names[1:] else names[0]
    else:
        name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    command = typer.main.get_command(_app([name] if name else [*COMMANDS], is_one))
    try:  # not `command.main`, which ends the process itself where a pipe is closed
        with command.make_context(os.path.basename(sys.argv[0]), arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _app(names: Sequence[str], is_one: bool) -> typer.Typer:
    """Return the parser of these commands."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"help_option_names": ["-h", "--help"]}
    for known in names:
        module = importlib.import_module(f".{COMMANDS[known]}", __package__)
        add = app.command(known, cls=Command, context_settings=settings, epilog=EXAMPLES[known])
        add(getattr(module, known))
    if not is_one:
        app.callback(context_settings=settings, invoke_without_command=True)(_root)
    return app


def _complete(arguments: list[str]) -> int:
    """Show or install the completion script of a shell, by default the person's."""
    from . import completion

    option, *rest = arguments
    if len(rest) > 1:
        raise UsageError(f"{option} takes one shell, not {' '.join(rest)!r}")
    shell = rest[0] if rest else completion.this_shell()
    commands = completion.commands_of(typer.main.get_command(_app([*COMMANDS], False)))
    if option == "--show-completion":
        print(completion.script(shell, PROGRAM, commands), end="")
        return 0
    file, todo = completion.install(shell, PROGRAM, commands)
    print(f"{file}\n{todo}")
    return 0


def _root(
    context: typer.Context,
    version: Version = False,
    install_completion: Install = None,
    show_completion: Show = None,
) -> None:
    """Z-Image on Apple's MLX. `mlx-zimage COMMAND --help` explains a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _fail(status: int, message: str, prefix: str = "error: ") -> int:
    """Print an error on one line: what it quotes may hold line breaks."""
    line = " ".join(f"{prefix}{in_options(message)}".splitlines())
    with contextlib.suppress(*NO_TEXT_FILE):
        print(line, file=sys.stderr, flush=True)
    return status


def _open_standard_files() -> None:
    """Open the standard files that the shell closed: else the next file opened is one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what standard output still holds to nowhere, where it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(*NO_TEXT_FILE):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
