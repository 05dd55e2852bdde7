"""`bench`, on small models."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage import cli
from mlx_zimage.bench import machine


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program leaves Ctrl-C ignored when it ends; and its matrix product takes seconds."""
    monkeypatch.setattr(machine, "GEMM", (256, 256, 256))
    kept = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, kept)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mlx-zimage", "bench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_report(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "report.json"
    asked = (
        "--model",
        str(checkpoint("small")),
        "--steps",
        "3",
        "--runs",
        "2",
        "--output",
        str(out),
    )
    assert run(monkeypatch, *asked, "--size", "32", "64") == 0
    shown = capsys.readouterr().out
    report: dict[str, Any] = json.loads(out.read_text("utf-8"))
    assert report["command"][:4] == ["mlx-zimage", "bench", "--model", report["model"]]
    assert "/" not in "".join(report["command"])  # no place on this machine
    assert report["machine"]["mlx"] in shown and report["gemm_flops"] > 1e8
    first, second = report["pictures"]
    assert (first["width"], second["width"], first["batch"]) == (32, 64, 1)
    assert second["step_flops"] > first["step_flops"]
    stages = {stage["name"]: stage for stage in first["stages"]}
    assert list(stages) == [
        "load text_encoder",
        "encode",
        "load transformer",
        "step",
        "denoise",
        "load vae",
        "decode",
    ]
    assert len(stages["step"]["seconds"]) == 6 and len(stages["decode"]["seconds"]) == 2
    assert all(seconds > 0 for stage in stages.values() for seconds in stage["seconds"])
    assert 0 < stages["step"]["peak"] < first["peak_rss"]
    for stage in stages:
        assert shown.count(f"\n{stage} ") == 2
    assert run(monkeypatch, *asked) == 1  # the file is there
    assert "exists already" in capsys.readouterr().err


def test_json_alone(
    checkpoint: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("--model", str(checkpoint("small")), "--size", "32", "--steps", "1", "--json")
    assert run(monkeypatch, *asked, "--batch", "2") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"][0]["batch"] == 2


@pytest.mark.parametrize(
    "arguments", [("--model", "demo", "--layers", "2"), ("--revision", "main"), ("--runs", "0")]
)
def test_wrong_usage(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, *arguments) == 2
