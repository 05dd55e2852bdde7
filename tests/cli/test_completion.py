"""Completion: scripts that the shells accept, with all commands and options."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mlx_zimage.cli import completion, program
from tests.cli.conftest import Run
from tests.needs import missing

SHELLS = completion.SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_hold_everything(run: Run, shell: str) -> None:
    done = run("--show-completion", shell)
    assert (done.status, done.err) == (0, "")
    words = ("sampler", "hires-strength", "res_multistep", "mxfp4", "staged", "only")
    for word in (*program.COMMANDS, *words):
        assert word in done.out


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_accepts_its_script(run: Run, here: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        missing(f"{shell} is not installed")
    Path("script").write_text(run("--show-completion", shell).out, "utf-8")
    checked = subprocess.run([shell, "-n", "script"], capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


LINES = [
    ("mlx-zimage sw", "sweep"),
    ("mlx-zimage generate --sampler r", "res_multistep"),
    ("mlx-zimage generate --hires-", "--hires-strength"),
    ("mlx-zimage sweep --q mx", "mxfp4 mxfp8"),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish_completes(run: Run, here: Path, line: str, expected: str) -> None:
    if shutil.which("fish") is None:
        missing("fish is not installed")
    Path("script").write_text(run("--show-completion", "fish").out, "utf-8")
    code = f"source ./script; complete -C '{line}'"
    shown = subprocess.check_output(["fish", "--no-config", "-c", code], text=True)
    assert " ".join(row.split("\t")[0] for row in shown.splitlines()) == expected


# Files are the shell's own.
@pytest.mark.parametrize(("line", "expected"), [*LINES, ("mlx-zimage generate --image ", "")])
def test_bash_completes(run: Run, here: Path, line: str, expected: str) -> None:
    Path("script").write_text(run("--show-completion", "bash").out, "utf-8")
    words = line.split(" ")
    listed = " ".join(f"'{word}'" for word in words)
    code = (
        f"source ./script; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "
        '_mlx_zimage; echo "${COMPREPLY[*]}"'
    )
    shown = subprocess.check_output(["bash", "--norc", "-c", code], text=True)
    assert shown.strip() == expected


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("zsh", ".zfunc/_mlx-zimage"),
        ("bash", ".local/share/bash-completion/completions/mlx-zimage"),
        ("fish", ".config/fish/completions/mlx-zimage.fish"),
    ],
)
def test_installing(run: Run, here: Path, shell: str, place: str, monkeypatch: object) -> None:
    monkeypatch.setenv("HOME", str(here))  # type: ignore[attr-defined]
    monkeypatch.setenv("SHELL", f"/bin/{shell}")  # type: ignore[attr-defined]
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)  # type: ignore[attr-defined]
    done = run("--install-completion")
    assert done.status == 0 and done.out.splitlines()[0] == str(here / place)
    assert (here / place).read_text("utf-8") == run("--show-completion", shell).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--show-completion", "csh"], "the shell must be zsh, bash or fish, not 'csh'"),
        (["--install-completion", "zsh", "bash"], "--install-completion takes one shell"),
        (["generate", "x", "--show-completion"], "No such option"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.status == 2 and done.error.startswith(message)


def test_an_unknown_shell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert run("--show-completion").error.startswith("the shell must be zsh, bash or fish")
