"""`convert` and `verify`."""

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import ZImage
from tests.cli.conftest import Run
from tests.cli.test_screen import Terminal
from tests.hub.hub_server import Hub

COMPONENTS = ["text_encoder", "transformer", "vae"]


def test_convert(run: Run, small: str) -> None:
    done = run("convert", small, "out")
    assert (done.status, done.out) == (0, "out\n")
    assert [line.split(":")[0] for line in done.err.splitlines()] == COMPONENTS
    ZImage.load("out")
    again = run("convert", small, "out")
    assert again.status == 1
    assert again.error.endswith("out exists; name another folder, or replace it with --force")
    done = run("convert", small, "out", "--force", "--quiet")
    assert (done.status, done.out, done.err) == (0, "out\n", "")


def test_quantize_plan_and_verify(run: Run, here: Path, checkpoint: Callable[[str], Path]) -> None:
    source = str(checkpoint("even"))
    *planned, total = run("convert", source, "--plan", "--q", "4", "--json").events
    assert os.listdir(here) == []
    done = run("convert", source, "out", "-q", "4", "--json")
    assert (done.status, done.err) == (0, "")
    *events, last = done.events
    assert last == {"event": "converted", "folder": "out"}
    totals = {event["component"]: event["total"] for event in events}
    assert {line["component"]: line["bytes"] for line in planned} == totals
    assert {line["event"] for line in planned} == {"plan"}
    assert total["event"] == "total"
    assert (total["bytes"], total["largest"]) == (sum(totals.values()), max(totals.values()))
    lines = run("verify", "out").out.splitlines()
    assert lines[-3:] == [f"{name}: ok" for name in COMPONENTS]
    assert "transformer/config.json: ok" in lines
    verified = run("verify", "out", "--json").events
    assert verified[-1] == {"event": "verified", "name": "vae"} and len(verified) == len(lines)
    text = run("convert", source, "--plan").out
    assert "bits each" in text and "in memory, weights alone" in text


def test_a_mixed_plan_tells_what_layers_get(run: Run, here: Path) -> None:
    events = run("convert", "demo", "--plan", "--mixed", "3.5", "--json").events
    kinds = {event["kind"]: event["layers"] for event in events if event["event"] == "bits"}
    assert len(kinds) == 21 and sum(sum(counts.values()) for counts in kinds.values()) == 49
    text = run("convert", "demo", "--plan", "--mixed", "3.5")
    assert "layers to_v: 5 at 4 bits" in text.out and "by the demo's errors" in text.err
    assert os.listdir(here) == []


def test_verify_finds_damage(run: Run, small: str) -> None:
    run("convert", small, "out")
    file = next(Path("out/transformer").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    done = run("verify", "out")
    assert done.status == 1 and done.err.startswith("error: ") and "transformer" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere", "Missing argument 'OUT'"),
        ("nowhere out --plan", "--plan writes nothing; leave out OUT"),
        ("nowhere --plan --force", "--plan writes nothing; leave out --force"),
        ("demo out --q 7", "--q must be one of"),
        ("demo out --q-text-encoder 7", "--q must be one of"),
        ("demo out --dtype int8", "--dtype must be one of"),
        ("demo out --only unet", "--only must be one of"),
        ("demo out --group-size 32", "a group size is for quantizing; say how many bits"),
        ("demo out --q 4 --group-size 5", "the group size of 4-bit weights must be 32 or 64"),
        ("demo out --q 2", "2 bits leave no picture unless calibrated"),
        ("demo out --calibrate", "--calibrate is for quantizing; say how many bits"),
        ("demo out --q 4 --mixed 3.5", "--q must be left out where --mixed 3.5 chooses"),
        ("demo out --mixed 9", "mixed bits can take from"),
        ("demo out --q 4 --calibrate --prompts none.txt", "the prompts must be a text file"),
        ("demo out --report out.json", "a report is on a full checkpoint that is quantized"),
        ("demo out --q 4 --report out.txt", "the output must end in .json"),
        ("demo out --download", "'demo' is on this machine; there is nothing to download"),
        ("demo out --revision main", "a revision is for the Hub"),
        ("turbo out --download --offline", "--download and --offline exclude each other"),
        ("demo out --quiet --json", "--quiet has no effect with --json"),
        ("demo out --for comfyui", "a checkpoint is written for mlx-vlm, mflux or diffusers, not"),
        ("demo out --for diffusers --q 4", "diffusers loads 16 or 32 bit alone"),
        ("demo --plan --upload owner/new", "--plan writes nothing; leave out --upload"),
        ("demo out --yes", "--yes is for --upload; leave it out"),
        ("demo out --upload owner/new --offline", "--upload and --offline exclude each other"),
        ("demo out --upload owner/new", "--upload publishes 0.02 GB to owner/new on the Hub, for"),
        ("demo out --upload new --yes", "an upload goes to a Hub repo id (owner/name), not to new"),
    ],
)
def test_wrong_usage(run: Run, here: Path, arguments: str, message: str) -> None:
    done = run("convert", *arguments.split())
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith(message)
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("convert nowhere out", "no such checkpoint: nowhere"),
        ("convert turbo out", "Tongyi-MAI/Z-Image-Turbo"),
        ("verify nowhere", "nowhere"),
    ],
)
def test_refused(run: Run, here: Path, arguments: str, message: str) -> None:
    done = run(*arguments.split())
    assert done.status == 1 and message in done.error
    assert os.listdir(here) == []


def test_other_components_that_are_not_there(run: Run, here: Path) -> None:
    (here / "empty").mkdir()
    for path in ("nowhere", "empty", "empty/x.safetensors"):
        done = run("convert", "demo", "out", "--with", path)
        assert done.status in (1, 2) and path in done.error
    assert os.listdir(here) == ["empty"]


def test_ctrl_c_while_calibrating(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("mlx_zimage.cli.convert.convert_checkpoint", interrupted)
    for options, words in ((["--calibrate"], "the same command goes on"), ([], "")):
        done = run("convert", "demo", "out", "--q", "8", *options)
        assert done.status == 130 and words in done.err
        assert ("goes on" in done.err) == bool(words)


def test_force_deletes_nothing_that_is_not_ours(run: Run, here: Path, small: str) -> None:
    assert run("convert", small, "out").status == 0
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save("out/holiday.png")
    done = run("convert", small, "out", "--force")
    assert done.status == 1 and "holiday.png" in done.error
    assert (here / "out/holiday.png").exists()


def test_written_for_another_program(run: Run, here: Path, small: str) -> None:
    assert run("convert", small, "out", "--for", "mflux").status == 0
    assert (here / "out/transformer/0.safetensors").is_file()
    assert run("verify", "out").out.splitlines()[-3:] == [f"{name}: ok" for name in COMPONENTS]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's
def test_upload(
    run: Run, hub: Hub, here: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published after a yes alone, which is asked for before the work."""
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.token = "hf_secret"
    refused = run("convert", small, "out", "--upload", "owner/new", "--yes")
    assert refused.status == 1 and "a token that may write there is needed" in refused.error
    assert os.listdir(here) == []
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = run("convert", small, "out", "--upload", "owner/new", "--yes", "--json")
    assert (done.status, done.err) == (0, "")
    assert done.events[-1] == {"event": "uploaded", "url": f"{hub.url}/owner/new"}
    assert b"\n# new\n" in hub.repos["owner/new"]["README.md"]


@pytest.mark.parametrize(("answer", "status"), [("n\n", 2), ("", 130)])
def test_a_person_may_say_no_to_an_upload(
    run: Run, hub: Hub, here: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Keyboard(answer))
    monkeypatch.setattr(sys, "stderr", screen)
    assert run("convert", "demo", "out", "--upload", "owner/new").status == status
    question = "Upload 0.02 GB to owner/new on the Hub, for everybody to see? [y/N]"
    assert question in screen.getvalue()
    assert os.listdir(here) == [] and hub.repos == {}


def test_verify_against_what_is_published(run: Run, hub: Hub, here: Path, small: str) -> None:
    assert run("verify", small, "--against", "owner/model", "--save", "list.json").status == 0
    shutil.copytree(small, "copy")
    (here / "copy/model_index.json").write_text("{}")
    hub.status = 503
    done = run("verify", "copy", "--against", "list.json", "--json")
    assert done.status == 1
    states = {event["name"]: event["state"] for event in done.events if "state" in event}
    assert [n for n, state in states.items() if state != "ok"] == ["model_index.json"]
    done = run("verify", "copy", "--against", "owner/model")
    assert done.status == 1 and "save the list where there is a network" in done.error
    assert run("verify", small, "--save", "x.json").error == "--save is for --against; leave it out"
