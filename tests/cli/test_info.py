"""`info`: the metadata of a picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import __version__, read_metadata
from tests.cli.conftest import Run


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
