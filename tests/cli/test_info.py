"""`info`: the metadata of a picture."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import __version__, read_metadata
from tests.cli.conftest import Run
from tests.hub.hub_server import Hub


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_picture(run: Run, small: str, name: str) -> None:
    draw = ("generate", "two\nlines", "--model", small, "--size", "32x16", "--seed", "7")
    assert run(*draw, "--steps", "1", "-o", name).status == 0
    lines = run("info", name).out.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines)
    assert facts["prompt"] == r"'two\nlines'"
    assert (facts["width"], facts["height"], facts["seed"]) == ("32", "16", "7")
    assert (facts["model"], facts["mlx_zimage"]) == (small, __version__)
    (event,) = run("info", name, "--json").events
    assert event == {"event": "info", "file": name, **read_metadata(name)}


def test_arrays_are_told_by_their_shape(run: Run, small: str) -> None:
    np.save("latents.npy", np.zeros((1, 16, 4, 4), np.float32))
    np.save("embeds.npy", np.zeros((5, 48), np.float32))
    files = ("--latents", "latents.npy", "--prompt-embeds", "embeds.npy")
    assert run("generate", "--model", small, *files, "--steps", "1", "-o", "a.png").status == 0
    out = run("info", "a.png").out
    assert "latents        array, 1x16x4x4\n" in out and "array, 5x48\n" in out
    assert len(out) < 1000


def test_what_is_no_picture_of_ours(run: Run) -> None:
    Image.new("RGB", (4, 4)).save("foreign.png")
    Path("text.png").write_text("text")
    for name in ("foreign.png", "text.png", "none.png", "."):
        done = run("info", name)
        assert done.status == 1 and done.error.startswith(name)


def test_this_machine(run: Run) -> None:
    done = run("info")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    names = [line.split()[0] for line in lines if line]
    assert names[:6] == ["mlx-zimage", "machine", "device", "packages", "models", "copies"]
    assert f"mlx {version('mlx')}" in done.out and __version__ in lines[0]
    assert "turbo: not here, base: not here" in done.out
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["fits", "here", "512x512", "1024x1024", "1536x1536", "2048x2048"]
    assert [line.split("  ")[0] for line in table[1:]] == ["16 bit", "--q 8", "--q 4"]


def test_this_machine_as_json(run: Run) -> None:
    (event,) = run("info", "--json").events
    assert event["event"] == "machine" and event["packages"]["mlx"] == version("mlx")
    assert event["models"] == {"turbo": "not here", "base": "not here"}
    assert len(event["fits"]) == 12 and event["fits"][0]["side"] == 512


def test_no_names_of_users_or_hosts(run: Run) -> None:
    text = run("info").out + run("info", "--json").out
    for name in (platform.node(), str(Path.home()), os.environ.get("USER", "")):
        assert len(name) < 5 or name not in text


def test_a_model_that_is_here(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_zimage.hub.locate.NAMES", {"turbo": "owner/model", "base": "o/m"})
    assert run("download", "owner/model").status == 0
    assert "turbo: here, base: not here" in run("info").out


def test_pictures_are_told_by_their_bytes(run: Run, small: str) -> None:
    Image.new("RGB", (32, 32), "red").save("image.png")
    options = ("--model", small, "--size", "32", "--steps", "2", "--image", "image.png")
    assert run("generate", "x", *options, "-o", "a.png").status == 0
    out = run("info", "a.png").out
    assert "picture, " in out and len(out) < 1000
