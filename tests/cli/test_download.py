"""`download`, and a generation that downloads after saying what."""

import io
import os
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_screen import Terminal
from tests.hub.hub_server import COMMIT, Hub

DRAW = ("generate", "a red circle", "--seed", "1", "--steps", "1", "-o", "a.png")
MODEL = ("--model", "owner/model")
SAID = "owner/model (licence apache-2.0, revision cccccccc): 19 files, 0.01 GB"


def test_download(run: Run, hub: Hub) -> None:
    done = run("download", "owner/model", "--json")
    assert (done.status, done.err) == (0, "")
    *events, last = done.events
    assert {event["event"] for event in events} == {"downloaded"}
    assert events[-1]["done"] == events[-1]["total"] > 5_000_000
    assert last == {"event": "ready", "folder": last["folder"], "revision": COMMIT}
    assert Path(last["folder"]).name == COMMIT
    hub.requests.clear()
    again = run("download", "owner/model", "--quiet")
    assert (again.status, again.out.strip(), again.err) == (0, last["folder"], "")
    assert hub.requests == []  # it is here


def test_generate_says_what_it_downloads(run: Run, hub: Hub) -> None:
    offline = run(*DRAW, *MODEL, "--offline")
    assert offline.status == 1 and hub.requests == []
    assert offline.error.startswith("owner/model is not on this machine")
    unasked = run(*DRAW, *MODEL)
    assert unasked.status == 1
    assert unasked.error == (
        f"{SAID}, are not on this machine; give --download to fetch them "
        "(the model demo needs no download)"
    )
    done = run(*DRAW, *MODEL, "--download")
    assert done.status == 0, done.err
    assert done.err.startswith(f"downloading {SAID}\ndownload: ")
    assert done.err.count("\n") == 2
    hub.status = 503
    assert run(*DRAW, *MODEL, "--overwrite").status == 0
    assert run(*DRAW, *MODEL, "--overwrite", "--download").status == 0


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("", 130)])
def test_a_person_is_asked(
    run: Run, hub: Hub, here: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Keyboard(answer))
    monkeypatch.setattr(sys, "stderr", screen)
    assert run(*DRAW, *MODEL).status == status
    question = f"{SAID}, are not on this machine. Download them? [y/N]"
    assert question in screen.getvalue()
    assert os.listdir(here) == (["a.png"] if status == 0 else [])


@pytest.mark.parametrize("options", [("--quiet",), ("--json",)])
def test_nobody_is_asked(
    run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    assert run(*DRAW, *MODEL, *options).status == 1
    assert "give --download" in screen.getvalue() and "[y/N]" not in screen.getvalue()


def test_values_are_judged_before_a_download(run: Run, hub: Hub) -> None:
    for wrong in (("--q", "7"), ("--memory", "tiny"), ("--dtype", "x"), ("--steps", "0")):
        assert run(*DRAW, *MODEL, "--download", *wrong).status == 2
    assert hub.requests == []


def test_a_size_is_judged_before_a_copy_is_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_zimage.convert.copies.LARGE", 0)
    done = run(*DRAW, "--model", "demo", "--q", "4", "--width", "100")
    assert done.status == 2 and "100" in done.error
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("demo", 2, "'demo' is on this machine; there is nothing to download"),
        (".", 2, "'.' is on this machine; there is nothing to download"),
        ("nowhere", 1, "no such checkpoint: nowhere"),
        ("", 2, "the model must be a name"),
    ],
)
def test_nothing_to_download(run: Run, source: str, status: int, message: str) -> None:
    done = run("download", source)
    assert done.status == status and done.error.startswith(message)
