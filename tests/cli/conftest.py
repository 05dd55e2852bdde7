"""The command line in this process, in an empty folder."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage.cli import program
from tests.hub.hub_server import Hub, serving

CONSTANTS = "huggingface_hub.constants"


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

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of --json."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Return a function that runs `mlx-zimage` with its arguments. There is no network."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MLX_ZIMAGE_CACHE", str(tmp_path / "copies"))
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["mlx-zimage", *arguments])
        capsys.readouterr()
        status = program.run(arguments)
        shown = capsys.readouterr()
        return Done(status, shown.out, shown.err)

    return run


@pytest.fixture
def small(checkpoint: Callable[[str], Path]) -> str:
    return str(checkpoint("small"))


@pytest.fixture
def hub(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve the small checkpoint as owner/model; to be requested after `run`."""
    shutil.copytree(small, tmp_path / "repository")
    with serving(tmp_path / "repository") as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{CONSTANTS}.ENDPOINT", hub.url)
        monkeypatch.setattr(f"{CONSTANTS}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", False)
        yield hub
