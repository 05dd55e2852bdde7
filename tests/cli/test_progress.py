"""The meter of bytes: what it says of size and time."""

import io
import json
import sys
import time

import pytest

from mlx_zimage import Downloaded
from mlx_zimage.cli.progress import CLEAR, ByteMeter
from mlx_zimage.convert.plan import Written

EVENTS = [Written("vae", 30_000_000, 120_000_000), Written("vae", 120_000_000, 120_000_000)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    meter = ByteMeter(as_json=False)
    meter.show(Written("vae", 0, 120_000_000))
    for seconds, event in zip((5.0, 15.0), EVENTS, strict=True):
        clock[0] = seconds
        meter.show(event)
    shown = sys.stderr.getvalue().split(CLEAR)
    assert shown == [
        "",
        "vae: 0.0 of 120.0 MB",
        "vae: 30.0 of 120.0 MB, 15.0 s left",
        "vae: 120.0 of 120.0 MB in 15.0 s\n",
    ]


def test_what_was_here_before_counts_for_no_speed(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    meter = ByteMeter(as_json=False)
    meter.show(Downloaded("a", 100_000_000, 120_000_000))
    clock[0] = 2.0
    meter.show(Downloaded("b", 110_000_000, 120_000_000))
    assert sys.stderr.getvalue().endswith("download: 110.0 of 120.0 MB, 2.0 s left")


def test_a_pipe(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    meter = ByteMeter(as_json=False)
    for event in EVENTS:
        meter.show(event)
    assert capsys.readouterr() == ("", "vae: 120.0 of 120.0 MB in 0.00 s\n")


def test_json_is_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    meter = ByteMeter(as_json=True)
    for event in EVENTS:
        meter.show(event)
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert lines == [{"event": "written", **vars(event)} for event in EVENTS]
    assert shown.err == ""
