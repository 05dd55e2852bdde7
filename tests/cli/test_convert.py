"""`convert.py` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_zimage import ZImage
from mlx_zimage.checkpoint.components import COMPONENTS

SCRIPT = Path(__file__).parents[2] / "convert.py"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_convert(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    out = tmp_path / "out"
    done = run(str(checkpoint("small")), str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == list(COMPONENTS)
    ZImage.load(out)
    again = run(str(checkpoint("small")), str(out))
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "exists already; name another folder, or pass --force" in again.stderr
    assert run(str(checkpoint("small")), str(out), "--force").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["nowhere"], 2),
        (["nowhere", "out", "--plan"], 2),
        (["nowhere", "--plan", "--force"], 2),
        (["nowhere", "out"], 1),
        (["turbo", "out"], 1),
        (["verify", "nowhere"], 1),
    ],
)
def test_refused(
    arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    done = run(*arguments)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_interrupted(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    command = [sys.executable, str(SCRIPT), str(checkpoint("wide")), str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("text_encoder: ")
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        running.wait(timeout=30)
    if running.returncode == 0:  # it was quicker
        ZImage.load(tmp_path / "out")
    else:
        assert (running.returncode, os.listdir(tmp_path)) == (130, [])
    assert "Traceback" not in rest


def test_quantize_plan_and_verify(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    source, out = str(checkpoint("even")), str(tmp_path / "out")
    planned = run(source, "--plan", "--q", "4", "--json")
    done = run(source, out, "--q", "4", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"event": "converted", "folder": out}
    totals = {line["part"]: line["total"] for line in lines[:-1]}
    plan = [json.loads(line) for line in planned.stdout.splitlines()]
    assert {line["part"]: line["bytes"] for line in plan} == totals
    assert (planned.returncode, done.returncode, done.stderr) == (0, 0, "")
    assert "transformer: right" in run("verify", out).stdout.splitlines()
    text = run(source, "--plan").stdout
    assert "in memory, weights alone" in text
