"""A training that is killed, stopped, or without room on its disk ends in the same figures."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.parity

STEPS = 8


def _train(out: Path, steps: int = STEPS, batch: int = 2) -> bool:
    from tools.train_demo import train_transformer

    return train_transformer.train(out, steps, batch=batch, compiled=False)


def _state(out: Path) -> dict[str, Any]:
    import torch

    return torch.load(out / "transformer-training.pt")


def _assert_same(one: Path, other: Path) -> None:
    ours, theirs = _state(one), _state(other)
    assert ours["step"] == theirs["step"]
    for part in ("weights", "mean"):
        for name, tensor in ours[part].items():
            assert tensor.equal(theirs[part][name]), f"{part} {name}"


def test_a_run_that_breaks_off_anywhere(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a step, or of writing a checkpoint: again and again until it is through."""
    import torch

    from tools.train_demo import train_state

    whole = shutil.copytree(out, out.with_name("whole"))
    assert _train(whole)
    monkeypatch.setattr(train_state, "CHECKPOINT_SECONDS", 0)
    places = [
        (torch.nn.utils, "clip_grad_norm_"),
        (os, "fsync"),
        (torch, "save"),
        (Path, "replace"),
    ]
    generator, breaks = random.Random(1), 0
    while True:
        module, name = generator.choice(places)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _breaking(getattr(module, name), generator.randrange(5)))
            try:
                assert _train(out)
                break
            except ZeroDivisionError:
                breaks += 1
    assert breaks >= 2
    _assert_same(out, whole)


def _breaking(function: Any, calls: int) -> Any:
    left = iter(range(calls))

    def call(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise ZeroDivisionError
        return function(*arguments, **options)

    return call


def test_a_run_that_is_killed(out: Path) -> None:
    whole = shutil.copytree(out, out.with_name("whole"))
    assert _train(whole, 40)
    command = [sys.executable, "-m", "tests.train_demo.tiny", str(out), "40"]
    generator = random.Random(2)
    for kind in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        first = out.stat().st_mtime_ns
        while out.stat().st_mtime_ns == first and process.poll() is None:
            time.sleep(0.05)  # until it writes its first checkpoint
        time.sleep(generator.uniform(0, 1))
        process.send_signal(kind)
        assert process.wait() == (-signal.SIGKILL if kind == signal.SIGKILL else 3)
        assert 0 < _state(out)["step"] < 40
    assert subprocess.run(command, check=False).returncode == 0
    _assert_same(out, whole)


def test_a_stop_file_ends_a_run_and_is_taken_away(out: Path) -> None:
    (out / "stop").touch()
    assert not _train(out)
    assert not (out / "stop").exists()
    assert _state(out)["step"] == 0
    assert _train(out)


def test_a_full_disk_leaves_the_checkpoint_before(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(out, 2)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        _train(out, 4)
    assert "its last state stays: [Errno 28]" in capsys.readouterr().out
    assert _state(out)["step"] == 2
    assert not list(out.glob("*.part"))


def test_a_checkpoint_of_another_configuration_is_refused(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools.train_demo import train_transformer

    assert _train(out, 1)
    with pytest.raises(SystemExit, match="was written with batch 2, and this run has 3: use"):
        _train(out, 2, batch=3)
    monkeypatch.setattr(train_transformer, "MUON", 0.5)
    with pytest.raises(SystemExit, match=r"with MUON 0\.006, and this run has 0\.5") as raised:
        _train(out, 2)
    assert "\n" not in str(raised.value)
