"""Folders for small trainings."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train_demo import tiny


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder from which the transformer's training can start."""
    folder = tmp_path_factory.mktemp("prepared")
    tiny.prepare(folder)
    return folder


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back afterwards what a training does with signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def out(prepared: Path, signals: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return such a folder to train in."""
    tiny.shrink(monkeypatch.setattr)
    return shutil.copytree(prepared, tmp_path / "out")
