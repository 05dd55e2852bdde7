"""`compare`: two pictures in numbers and side by side."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import compare_pictures
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def pictures(here: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 200, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save("a.png")
    pixels[3, 4] += 7
    Image.fromarray(pixels).save("b.png")
    Image.new("RGB", (8, 8)).save("small.png")
    Image.new("RGB", (32, 16)).save("low.png")


def test_numbers(run: Run) -> None:
    done = run("compare", "a.png", "b.png")
    found = compare_pictures("a.png", "b.png")
    assert (done.status, done.err, done.out) == (0, "", f"{found.summary}\n")
    assert "largest difference 7, 0.1% of the pixels differ" in done.out
    (event,) = run("compare", "a.png", "b.png", "--json").events
    assert event["event"] == "comparison" and event["psnr"] == found.psnr
    assert (event["largest"], event["identical"], event["file"]) == (7, False, None)


def test_identical_pictures(run: Run) -> None:
    assert run("compare", "a.png", "a.png").out == "the pictures are identical\n"
    (event,) = run("compare", "a.png", "a.png", "--json").events
    assert (event["psnr"], event["ssim"], event["identical"]) == (None, 1.0, True)


def test_side_by_side(run: Run) -> None:
    assert run("compare", "a.png", "b.png", "-o", "both.png").status == 0
    with Image.open("both.png") as both:
        assert both.width > 3 * 32
    done = run("compare", "a.png", "b.png", "-o", "both.png")
    assert done.status == 1 and done.error.startswith("both.png exists already")
    assert run("compare", "a.png", "b.png", "-o", "both.png", "--overwrite").status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a.png"], 2, "Missing argument 'B'"),
        (["a.png", "b.png", "c.png"], 2, "unexpected argument: 'c.png'"),
        (["a.png", "none.png"], 1, "the second picture none.png cannot be read"),
        (["text.png", "a.png"], 1, "the first picture text.png is no picture"),
        (["a.png", "low.png"], 1, "pictures to compare must be of one size, not 32 x 24"),
        (["small.png", "small.png"], 1, "pictures to compare must be at least 11 pixels"),
        (["a.png", "b.png", "-o", "x.bmp"], 1, "the output must end in .png"),
    ],
)
def test_refused(run: Run, arguments: list[str], status: int, message: str) -> None:
    Path("text.png").write_text("text")
    done = run("compare", *arguments)
    assert (done.status, done.out) == (status, "") and done.error.startswith(message)
