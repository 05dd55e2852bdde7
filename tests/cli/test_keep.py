"""`download`, `cache`, and a generation that fetches or keeps: as programs, and in this process."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_zimage import cli
from mlx_zimage.convert import copies as cache
from tests.hub.hub_server import COMMIT, Hub, serving

PROGRAM = "from mlx_zimage.cli import main; main()"
DRAWN = ("--prompt", "a red circle", "--seed", "1", "--steps", "1")


@pytest.fixture
def hub(checkpoint: Callable[[str], Path], tmp_path: Path) -> Iterator[Hub]:
    shutil.copytree(checkpoint("small"), tmp_path / "repository")
    with serving(tmp_path / "repository") as hub:
        yield hub


def run(hub: Hub, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    work = hub.folder.parent
    found = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(work / "hub"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=work,
        env={**os.environ, **found, **more},
    )


def test_download(hub: Hub) -> None:
    done = run(hub, "download", "owner/model", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *events, last = map(json.loads, done.stdout.splitlines())
    assert {event["event"] for event in events} == {"downloaded"}
    assert events[-1]["done"] == events[-1]["total"] > 5_000_000
    assert last == {"event": "here", "folder": last["folder"]}
    assert Path(last["folder"]).name == COMMIT
    again = run(hub, "download", "owner/model")
    assert (again.returncode, again.stdout.strip()) == (0, last["folder"])


def test_generate_says_what_it_fetches(hub: Hub) -> None:
    asked = ("generate", "--model", "owner/model", *DRAWN, "--output", "a.png")
    offline = run(hub, *asked, "--offline")
    assert offline.returncode == 1 and hub.asked == []
    assert "is not on this machine, and nothing is downloaded unasked" in offline.stderr
    unasked = run(hub, *asked)
    assert unasked.returncode == 1 and unasked.stderr.count("\n") == 1
    assert "owner/model: 19 files, 0.01 GB, are not on this machine" in unasked.stderr
    assert "give --download (the model named demo is here already)" in unasked.stderr
    done = run(hub, *asked, "--download")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("fetching owner/model: 19 files, 0.01 GB\ndownload: ")
    hub.status = 503
    assert run(hub, *asked, "--overwrite").returncode == 0


def test_the_hubs_own_word_for_offline(hub: Hub) -> None:
    done = run(hub, "generate", "--model", "owner/model", *DRAWN, HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and hub.asked == []
    assert "run later: mlx-zimage download owner/model (the model named demo" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", *DRAWN, "--model", "demo", "--download"],
        ["generate", *DRAWN, "--model", "turbo", "--download", "--offline"],
        ["generate", *DRAWN, "--model", "demo", "--no-cache"],
        ["cache", "list", "x"],
        ["cache", "remove"],
        ["cache", "remove", "x", "--all"],
        ["cache", "burn"],
        ["download"],
    ],
)
def test_wrong_usage(hub: Hub, arguments: list[str]) -> None:
    done = run(hub, *arguments)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert hub.asked == []


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The program in this process, with models of any size worth keeping a copy of."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cache, "WORTH", 0)
    monkeypatch.setenv("MLX_ZIMAGE_CACHE", str(tmp_path / "copies"))
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-zimage", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return int(left.value.code or 0), shown.out, shown.err

    yield called
    signal.signal(signal.SIGINT, before)


def test_quantized_once_and_kept(command: Command, tmp_path: Path) -> None:
    draw = ("generate", "--model", "demo", *DRAWN, "--q", "4")
    status, out, said = command(*draw, "--output", "a.png")
    assert status == 0, said
    assert f"quantizing once, to be kept in {tmp_path / 'copies'}" in said
    status, out, said = command(*draw, "--output", "b.png")
    assert status == 0 and "quantizing" not in said
    status, _, _ = command(*draw, "--no-cache", "--output", "c.png")
    assert status == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    status, out, _ = command("cache", "list")
    (name, size, unit, path) = out.split()
    assert status == 0 and Path(path).is_dir() and 0 < float(size) < 0.1
    assert command("cache", "remove", "nothing")[0] == 1
    status, out, _ = command("cache", "remove", name)
    assert (status, out) == (0, f"removed {name}: {size} {unit}\n")
    assert command("cache", "list") == (0, "", "")


@pytest.mark.parametrize("wrong", [("--memory", "banana"), ("--width", "100")])
def test_nothing_is_made_for_what_cannot_be(
    command: Command, tmp_path: Path, wrong: tuple[str, str]
) -> None:
    status, _, said = command("generate", "--model", "demo", *DRAWN, "--q", "4", *wrong)
    assert status == 1 and said.count("\n") == 1 and wrong[1] in said
    assert not (tmp_path / "copies").exists()
