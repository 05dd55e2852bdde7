"""Reporters: what people and programs see of events."""

import io
import json
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from PIL import Image

from mlx_zimage import (
    Downloaded,
    Finished,
    Request,
    Result,
    Started,
    Step,
    Truncated,
    Written,
)
from mlx_zimage.cli.progress import BEAT, JsonReporter, TextReporter, reporter, seconds_text
from mlx_zimage.cli.screen import CLEAR, Screen
from tests.cli.test_screen import Terminal

LATENTS = mx.zeros((1, 16, 2, 2))
BYTES = [Written("vae", 30_000_000, 120_000_000), Written("vae", 120_000_000, 120_000_000)]


class Clock:
    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return clock


def text_reporter(
    screen: io.StringIO, out: io.StringIO | None = None, **options: Any
) -> TextReporter:
    return TextReporter(Screen(screen), out or io.StringIO(), **options)


def step(number: int, job: int = 0, seconds: float = 2.0) -> Step:
    return Step(number, 4, 0.5, seconds, LATENTS, job)


def result(job: int = 0) -> Result:
    request = Request("a fox", width=32, height=16, steps=4, seed=7)
    return Result(Image.new("RGB", (32, 16)), LATENTS, mx.zeros((3, 8)), request, job=job)


def test_a_line_that_moves(clock: Clock) -> None:
    screen, out = Terminal(), io.StringIO()
    report = text_reporter(screen, out)
    events = [Started("load", "transformer"), Started("denoise"), step(1), step(2, seconds=4)]
    for event in events:
        report.event(event)
    report.saved(result(), Path("a.png"))
    assert screen.getvalue().split(CLEAR) == [
        "",
        "load transformer",
        "denoise",
        "step 1 of 4, 2.0 s a step, 6.0 s left",
        "step 2 of 4, 3.0 s a step, 6.0 s left",
        "",
    ]
    assert out.getvalue() == "a.png  (seed 7, 32x16, 4 steps, 0.00 s)\n"


def test_several_pictures_are_numbered_and_counted(clock: Clock) -> None:
    screen, out = Terminal(), io.StringIO()
    report = text_reporter(screen, out, jobs=3)
    report.event(Finished("encode", 1.5, job=1))
    report.event(Finished("denoise", 8.0, job=1))
    report.event(Finished("denoise", 99.0, job=2))
    report.event(step(3, job=1))
    assert screen.getvalue() == (
        f"{CLEAR}[2/3] step 3 of 4, 0.67 s a step, 3.3 s left"  # 5 steps
    )
    report.saved(result(job=1), Path("a-7.png"))
    assert out.getvalue() == "a-7.png  (seed 7, 32x16, 4 steps, 9.5 s)\n"


def test_a_pipe_gets_a_line_now_and_then(clock: Clock) -> None:
    screen, out = io.StringIO(), io.StringIO()
    report = text_reporter(screen, out)
    report.event(Started("denoise"))
    for number in (1, 2, 3, 4):
        clock.now += BEAT / 2
        report.event(step(number, seconds=BEAT / 2))
    report.event(Finished("denoise", 2 * BEAT))
    report.saved(result(), Path("a.png"))
    assert screen.getvalue().splitlines() == [
        "step 2 of 4, 5.0 s a step, 10.0 s left",
        "step 4 of 4, 5.0 s a step",
    ]
    assert out.getvalue().startswith("a.png  (seed 7")


def test_quiet_shows_results_alone(clock: Clock) -> None:
    for screen in (Terminal(), io.StringIO()):
        out = io.StringIO()
        report = text_reporter(screen, out, quiet=True)
        clock.now += BEAT
        for event in (Started("load", "vae"), step(1), *BYTES):
            report.event(event)
        report.note("a note")
        report.saved(result(), Path("a.png"))
        assert (screen.getvalue(), out.getvalue()) == ("", "a.png\n")


@pytest.mark.parametrize("quiet", [True, False])
def test_a_cut_prompt_is_a_warning_once(quiet: bool) -> None:
    screen = io.StringIO()
    report = text_reporter(screen, jobs=3, quiet=quiet)
    for job in range(3):
        report.event(Truncated("word " * 20_000 + "\n\x1b[31m", 512, job))
    line = screen.getvalue()
    assert line.startswith("warning: the prompt is longer than 512 tokens; ignored: 'word word")
    assert line.count("\n") == 1 and len(line) < 200 and "\x1b" not in line
    assert "characters" in line


def test_bytes_on_a_terminal(clock: Clock) -> None:
    screen = Terminal()
    report = text_reporter(screen)
    report.event(Written("vae", 0, 120_000_000))
    for seconds, event in zip((5.0, 15.0), BYTES, strict=True):
        clock.now = seconds
        report.event(event)
    assert screen.getvalue().split(CLEAR) == [
        "",
        "vae: 0.0 of 120.0 MB",
        "vae: 30.0 of 120.0 MB, 15.0 s left",
        "vae: 120.0 of 120.0 MB in 15.0 s\n",
    ]


def test_what_was_here_before_counts_for_no_speed(clock: Clock) -> None:
    screen = Terminal()
    report = text_reporter(screen)
    report.event(Downloaded("a", 100_000_000, 120_000_000))
    clock.now = 2.0
    report.event(Downloaded("b", 110_000_000, 120_000_000))
    assert screen.getvalue().endswith("download: 110.0 of 120.0 MB, 2.0 s left")


def test_bytes_in_a_pipe() -> None:
    screen = io.StringIO()
    report = text_reporter(screen)
    for event in BYTES:
        report.event(event)
    assert screen.getvalue() == "vae: 120.0 of 120.0 MB in 0.00 s\n"


def test_json_is_the_events() -> None:
    out = io.StringIO()
    report = JsonReporter(out)
    for event in (Started("load", "vae", 1), Finished("encode", 0.5), step(1), *BYTES):
        report.event(event)
    report.event(Truncated("lost", 512))
    report.note("a note")
    report.saved(result(job=1), Path("狐.png"))
    report.result("text", "ready", folder="there")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "started", "phase": "load", "component": "vae", "job": 1},
        {"event": "finished", "phase": "encode", "seconds": 0.5, "component": "", "job": 0},
        {"event": "step", "number": 1, "total": 4, "sigma": 0.5, "seconds": 2.0, "job": 0},
        {"event": "written", "component": "vae", "done": 30_000_000, "total": 120_000_000},
        {"event": "written", "component": "vae", "done": 120_000_000, "total": 120_000_000},
        {"event": "truncated", "lost": "lost", "limit": 512, "job": 0},
        {"event": "result", "job": 1, "file": "狐.png", "request": result().request.to_dict()},
        {"event": "ready", "folder": "there"},
    ]


def test_the_options_choose_the_reporter() -> None:
    assert isinstance(reporter(True), JsonReporter)
    assert isinstance(reporter(False), TextReporter)
    assert not reporter(True).asks and reporter(False).asks
    assert not reporter(False, quiet=True).asks


def test_durations() -> None:
    assert [seconds_text(s) for s in (0.25, 1, 12.34, 90)] == [
        "0.25 s",
        "1.0 s",
        "12.3 s",
        "1.5 min",
    ]
