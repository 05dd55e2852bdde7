"""The rules of parsing that hold for every command, and its help."""

import re

import pytest

from mlx_zimage.cli import program
from mlx_zimage.cli.parsing import spread
from tests.cli.conftest import Run

SEEDS = {"--seed", "-s"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--seed 1 2 3", "--seed 1 --seed 2 --seed 3"),
        ("-s 1 2 -o a.png", "-s 1 -s 2 -o a.png"),
        ("--seed 1-4 7,8 fox", "--seed 1-4 --seed 7,8 fox"),
        ("--seed=1 2 fox 3", "--seed=1 --seed 2 fox 3"),
        ("--seed -1 2", "--seed -1 --seed 2"),
        ("--seed x 1", "--seed x --seed 1"),
        ("--seed", "--seed"),
        ("--steps 1 2", "--steps 1 2"),
        ("--seed 1 -- 2", "--seed 1 -- 2"),
        ("fox 1 --seed 2", "fox 1 --seed 2"),
    ],
)
def test_numbers_after_a_list_option(arguments: str, expected: str) -> None:
    assert spread(arguments.split(), SEEDS) == expected.split()


@pytest.mark.parametrize("command", ["", *program.COMMANDS])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_fits_80_columns(run: Run, command: str, flag: str) -> None:
    done = run(*command.split(), flag)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Usage: mlx-zimage {command}".rstrip())
    assert max(map(len, done.out.splitlines())) <= 80
    assert not any(line.endswith("...") for line in done.out.splitlines()[1:])
    assert "<" not in done.out  # each option names its value


def test_help_lists_options_in_groups(run: Run) -> None:
    help_text = run("generate", "--help").out
    groups = ["Picture", "Input", "Picture to picture", "Sampling", "Model", "Memory", "Output"]
    groups += ["Expert", "Other", "Examples"]
    assert re.findall(r"^(\w[\w ]*):$", help_text, re.MULTILINE) == groups
    assert help_text.startswith("Usage: mlx-zimage generate [OPTIONS] [PROMPT ...]\n")
    for mode in ("auto", "resident", "staged", "low"):
        assert f"\n{'':28}{mode}  " in help_text
    usage = run("convert", "--help").out.splitlines()[0]
    assert usage == "Usage: mlx-zimage convert [OPTIONS] SOURCE [OUT]"


def test_truncation_is_explained_as_the_models_time(run: Run) -> None:
    text = " ".join(run("generate", "--help").out.split())
    assert (
        "--cfg-truncation T Model time (0 noise to 1 clean) after which guidance is off; "
        "not a share of the steps." in text
    )


def test_commands_are_listed(run: Run) -> None:
    listed = run("--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(program.COMMANDS)


def test_no_command(run: Run) -> None:
    done = run()
    assert (done.status, done.out) == (2, "") and "Commands:" in done.err


@pytest.mark.parametrize("arguments", [["--version"], ["generate", "--version"]])
def test_version(run: Run, arguments: list[str]) -> None:
    from mlx_zimage import __version__

    assert run(*arguments).out == f"mlx-zimage {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("burn", "No such command 'burn'"),
        ("generate fox --no-such-option", "No such option: --no-such-option"),
        ("generate fox --steps many", "Invalid value for '--steps'"),
        ("generate --prompt", "Option '--prompt' requires an argument"),
        ("generate a fox", "unexpected argument: 'fox'; a text of several words needs quotes"),
        ("generate fox --width 64 --width 32", "--width is given twice"),
        ("generate fox -W 64 --width 32", "--width is given twice"),
        ("generate -p fox --prompt fox", "--prompt is given twice"),
        ("download", "Missing argument 'SOURCE'"),
        ("verify", "Missing argument 'FOLDER'"),
        ("convert", "Missing argument 'SOURCE'"),
        ("convert demo", "Missing argument 'OUT'"),
        ("bench --runs 0", "Invalid value for '--runs'"),
    ],
)
def test_wrong_usage(run: Run, arguments: str, message: str) -> None:
    done = run(*arguments.split())
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith(message)


def test_flags_may_be_repeated(run: Run) -> None:
    assert "--json" not in run("cache", "list", "--json", "--json").err
