"""The program as a process: its streams, Ctrl-C at any time, and its exit status."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
GENERATE = [sys.executable, str(ROOT / "generate.py")]
CONSOLE_SCRIPT = Path(sys.executable).with_name("mlx-zimage")
QUICK = ["a fox", "--size", "32", "--steps", "1", "--output", "a.png"]
LONG = ["a fox", "--size", "32", "--steps", "1000", "--output", "a.png"]


def call(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def shell(arguments: Sequence[str], redirected: str) -> "subprocess.CompletedProcess[str]":
    """Run generate.py with its standard files redirected."""
    words = [sys.executable, str(ROOT / "generate.py"), *arguments]
    return call("bash", "-c", f'"$@" {redirected}', "bash", *words)


def test_the_scripts(here: Path, small: str) -> None:
    done = call(*GENERATE, *QUICK, "--model", small)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("a.png")
    convert = [sys.executable, str(ROOT / "convert.py")]
    done = call(*convert, small, "out")
    assert (done.returncode, done.stdout) == (0, "out\n")
    done = call(*convert, "verify", "out")
    assert done.returncode == 0 and done.stdout.endswith("vae: ok\n")


def test_the_console_script(here: Path, small: str) -> None:
    done = call(str(CONSOLE_SCRIPT), "generate", *QUICK, "--model", small)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "mlx_zimage.linux",
        "numpy._core._multiarray_umath",
        "mlx.core",
        "PIL.Image",
        "mlx_zimage.models.transformer",
        "mlx_zimage",
        "typer",
        "mlx_zimage.cli.outputs",
        "tokenizers",
    ],
)
@pytest.mark.parametrize("program", ["script", "console"])
def test_interrupted_while_loading(here: Path, small: str, program: str, module: str) -> None:
    """Send Ctrl-C when a module has been imported, as Python reports it."""
    script = GENERATE[1:] if program == "script" else [str(CONSOLE_SCRIPT), "generate"]
    command = [sys.executable, "-X", "importtime", *script, *LONG, "--model", small]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        imported = (line.split(b"|")[-1].strip() for line in running.stderr)
        assert module.encode() in imported, f"{module} is not imported"
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    messages = [line for line in errors.splitlines() if not line.startswith(b"import time:")]
    assert (running.returncode, messages) == (130, [b"interrupted"])
    assert os.listdir(here) == []


def test_interrupted_within_a_step(here: Path, small: str) -> None:
    command = [*GENERATE, *LONG, "--model", small, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert any(b'"step"' in line for line in running.stdout)
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (130, b"interrupted\n")
    assert out.count(b'"step"') < 900
    assert os.listdir(here) == []


def test_interrupted_while_converting(here: Path, checkpoint: Callable[[str], Path]) -> None:
    source = str(checkpoint("wide"))
    command = [sys.executable, str(ROOT / "convert.py"), source, "out", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert b"text_encoder" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    if running.returncode == 0:  # it was quicker
        assert os.listdir(here) == ["out"] and errors == b""
    else:
        assert (running.returncode, errors) == (130, b"interrupted\n")
        assert os.listdir(here) == []


@pytest.mark.slow
def test_a_reader_that_goes_away(here: Path, small: str) -> None:
    """End quietly and well, as `generate.py --json | head -1` has what it asked for."""
    for redirected in ("--json | head -1; echo ${PIPESTATUS[0]}", "--help | true; echo $?"):
        done = shell([*LONG, "--model", small], redirected)
        assert done.stderr == "" and done.stdout.splitlines()[-1] == "0"
    assert os.listdir(here) == []


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "2>/dev/full", "<&- 2>&-"])
def test_standard_files_that_are_closed(here: Path, small: str, closed: str) -> None:
    done = shell([*QUICK, "--model", small], closed)
    assert done.returncode == 0 and done.stdout.startswith("a.png")
    assert os.listdir(here) == ["a.png"]


@pytest.mark.parametrize("arguments", [["--help"], QUICK, [*QUICK, "--json"]])
def test_standard_output_that_is_full(here: Path, small: str, arguments: list[str]) -> None:
    done = shell([*arguments, "--model", small], ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.slow
def test_standard_output_that_is_closed(here: Path, small: str) -> None:
    done = shell([*QUICK, "--model", small], ">&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(here) == ["a.png"]


@pytest.mark.slow
def test_output_in_ascii(here: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for more in (["--json"], []):
        rest = [*QUICK[1:-1], "狐.png", "--model", small, "--overwrite", *more]
        done = call(*GENERATE, "狐狸 🦊", *rest)
        assert (done.returncode, done.stderr) == (0, "")


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    parent, child = pty.openpty()
    command = [*GENERATE, *arguments]
    with subprocess.Popen(command, stdout=child, stderr=child, stdin=child) as running:
        os.close(child)
        shown = b""
        while True:
            try:
                ready, _, _ = select.select([parent], [], [], 60)
                chunk = os.read(parent, 65536) if ready else b""
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        os.close(parent)
        running.wait()
    return running.returncode, shown.decode()


@pytest.mark.slow
def test_a_terminal(here: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    status, shown = on_a_terminal(*QUICK, "--model", small)
    updates = shown.split("\r\x1b[2K")
    assert status == 0 and {"load transformer", "decode"} < set(updates)
    assert any(update.startswith("step 1 of 1, ") for update in updates)
    # One line moves: the only line break is after the file that was written.
    assert shown.count("\n") == 1 and updates[-1].startswith("a.png")


@pytest.mark.slow
def test_a_dumb_terminal(here: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    status, shown = on_a_terminal(*QUICK, "--model", small)
    assert status == 0 and "\x1b" not in shown and shown.startswith("a.png")


def test_an_error_of_the_device(run: Run, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[METAL] Command buffer execution failed:\nsome\nlines")

    monkeypatch.setattr("mlx_zimage.models.transformer.ZImageTransformer.__call__", fail)
    done = run("generate", *QUICK, "--model", small)
    assert done.status == 1 and done.error.startswith("the GPU's driver refused the work")


def test_errors_of_the_system_are_one_line(
    run: Run, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "there")

    monkeypatch.setattr("mlx_zimage.cli.cache.list_copies", fail)
    done = run("cache", "list")
    assert (done.status, done.error) == (1, "there: Permission denied")


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_the_end_by_others(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("mlx_zimage.cli.cache.list_copies", fail)
    done = run("cache", "list")
    expected = (130, "interrupted\n") if error is KeyboardInterrupt else (0, "")
    assert (done.status, done.err) == expected
