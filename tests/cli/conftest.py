"""The command line in this process, in an empty folder."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlx_zimage.cli import program


@dataclass(frozen=True)
class Done:
    """A command line that has run."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that it ended with."""
        assert self.err.count("\n") == 1 and self.err.startswith("error: "), self.err
        return self.err.removeprefix("error: ").strip()


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `mlx-zimage` with these arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["mlx-zimage"])

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        status = program.run(arguments)
        shown = capsys.readouterr()
        return Done(status, shown.out, shown.err)

    return run


@pytest.fixture
def small(checkpoint: Callable[[str], Path]) -> str:
    return str(checkpoint("small"))
