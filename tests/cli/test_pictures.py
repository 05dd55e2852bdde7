"""`generate` from pictures, at aspects, with samplers and previews: options become fields."""

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Nag, Request, ZImage, read_metadata
from mlx_zimage.cli import preview
from tests.cli.conftest import Run
from tests.cli.test_program import on_a_terminal

QUICK = ("--size", "32", "--steps", "2", "--seed", "7")


@pytest.fixture
def draw(run: Run, small: str) -> Run:
    def draw(*arguments: str) -> object:
        return run("generate", "a fox", "--model", small, *QUICK, *arguments)

    return draw  # type: ignore[return-value]


@pytest.fixture
def image(here: Path) -> str:
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save("image.png")
    Image.fromarray((np.indices((32, 32))[1] > 15).astype(np.uint8) * 255).save("mask.png")
    return "image.png"


def stored(file: str) -> Request:
    return Request.from_dict(read_metadata(file)["request"])


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ("--sampler dpmpp_2m", {"sampler": "dpmpp_2m"}),
        ("--schedule beta --shift 4.5", {"schedule": "beta", "shift": 4.5}),
        ("--schedule 1,0.5", {"schedule": (1.0, 0.5)}),
        ("--variety 0.25", {"variety": 0.25}),
        (
            "--variation-of 3 --variation-strength 0.4",
            {"variation_of": 3, "variation_strength": 0.4},
        ),
        ("--image image.png --strength 0.9", {"strength": 0.9}),
        ("--image image.png --fit pad", {"fit": "pad"}),
        (
            "--image image.png --mask mask.png --mask-softness 4 --no-keep-unmasked",
            {"mask_softness": 4.0, "keep_unmasked": False},
        ),
        ("--image image.png --mask mask.png --keep-unmasked", {"keep_unmasked": True}),
        ("--image image.png --mask mask.png --focus 8", {"focus": 8}),
        ("--image image.png --mask mask.png --focus", {"focus": 32}),
    ],
)
def test_options_become_fields(draw: Run, image: str, options: str, fields: object) -> None:
    done = draw(*options.split(), "-o", "a.png")
    assert (done.status, done.err) == (0, "")
    request = stored("a.png")
    assert {name: getattr(request, name) for name in fields} == fields  # type: ignore[attr-defined]


def test_a_border(run: Run, small: str, image: str) -> None:
    options = ("--image", image, "--outpaint", "16,0,16,0", "--steps", "1", "-o", "a.png")
    done = run("generate", "a fox", "--model", small, *options)
    assert (done.status, done.err) == (0, "")
    assert stored("a.png").outpaint == (16, 0, 16, 0)
    with Image.open("a.png") as picture:
        assert picture.size == (64, 32)


def test_nag_in_its_forms(draw: Run) -> None:
    negative = ("--negative-prompt", "snow")
    assert draw("--nag", "3", *negative, "-o", "a.png").status == 0
    assert stored("a.png").nag == Nag(3)
    assert draw("--nag", "3,2.5,0.25", *negative, "-o", "b.png").status == 0
    assert stored("b.png").nag == Nag(3, 2.5, 0.25)


def test_the_same_as_the_library(draw: Run, small: str, image: str) -> None:
    assert draw("--image", image, "--strength", "0.9", "-o", "a.png").status == 0
    options = {"width": 32, "height": 32, "steps": 2, "seed": 7, "strength": 0.9}
    result = ZImage.load(small).generate("a fox", image=image, **options)  # type: ignore[arg-type]
    with Image.open("a.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(result.image))


def test_a_picture_is_read_once(draw: Run, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = preview.Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: (reads.append(a), read(*a, **k))[1])
    options = ("--image", image, "--strength", "0.9", "-o", "pics/")
    assert draw("--seed", "1-3", *options).status == 0
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("aspect", "size"), [("1:1", (64, 64)), ("2:1", (96, 48)), ("9:16", (48, 80))]
)
def test_an_aspect_in_the_models_area(
    run: Run, small: str, aspect: str, size: tuple[int, int]
) -> None:
    done = run("generate", "x", "--model", small, "--steps", "1", "--aspect", aspect, "-o", "a.png")
    assert done.status == 0, done.err
    request = stored("a.png")
    assert (request.width, request.height) == size


def test_an_aspect_with_megapixels(run: Run, small: str) -> None:
    options = ("--aspect", "16:9", "--megapixels", "0.01", "--steps", "1", "-o", "a.png")
    assert run("generate", "x", "--model", small, *options).status == 0
    request = stored("a.png")
    assert (request.width, request.height) == (144, 80)


def test_large_sizes_are_judged_by_memory(run: Run, small: str) -> None:
    done = run("generate", "x", "--model", small, "--size", "4096", "--estimate")
    assert done.status == 0 and "at most" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "none.png"], "image none.png cannot be read: No such file"),
        (["--image", "empty.png"], "image empty.png is empty"),
        (["--image", "text.png"], "image text.png is no picture that can be read"),
        (["--image", "cut.png"], "image cut.png cannot be read"),
        (["--image", "two.gif"], "image two.gif has 2 frames or pages"),
        (["--image", "."], "image . cannot be read"),
        (["--image", "image.png", "--mask", "other.png"], "--mask must be of the image's size"),
        (["--image", "image.png", "--mask", "none.png"], "mask none.png cannot be read"),
        (["--mask", "mask.png"], "--mask has no effect without an image"),
        (["--strength", "0.5"], "--strength has no effect without an image"),
        (["--image", "image.png", "--strength", "1.5"], "--strength must be a number from 0 to 1"),
        (["--image", "image.png", "--strength", "0"], "--strength must be above 0"),
        (["--image", "image.png", "--fit", "x"], "--fit must be crop, pad or stretch"),
        (["--outpaint", "1,2,3"], "--outpaint must be four numbers of pixels"),
        (["--outpaint", "1,2,3,-4"], "--outpaint must be four numbers of pixels"),
        (["--focus", "--mask", "mask.png"], "--mask has no effect"),
        (["--sampler", "magic"], "--sampler must be euler"),
        (["--schedule", "magic"], "--schedule must be"),
        (["--schedule", "beta,1"], "--schedule must be"),
        (["--shift", "0"], "--shift must be a number from 0.01"),
        (["--nag", "x"], "--nag must be a scale, as 3"),
        (["--nag", "1,2,3,4"], "--nag must be a scale, as 3"),
        (["--nag", "0.5"], "nag's scale must be a number from 1"),
        (["--variety", "2"], "--variety must be a number from 0 to 1"),
        (["--variation-of", "-1"], "--variation-of must be a whole number"),
        (["--hires", "0.5"], "--hires must be a number from 1 to 8"),
        (["--megapixels", "1"], "--megapixels has no effect without --aspect"),
        (["--aspect", "1:1"], "--aspect sets width and height; leave out --size"),
        (["--preview", ""], "--preview must name a file"),
        (["--preview", "-"], "--preview - needs a terminal that shows pictures"),
    ],
)
def test_wrong_usage(draw: Run, here: Path, image: str, arguments: list[str], message: str) -> None:
    Path("empty.png").touch()
    Path("text.png").write_text("text")
    Path("cut.png").write_bytes(Path(image).read_bytes()[:1000])
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    frames[0].save("two.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (64, 40), 255).save("other.png")
    before = sorted(os.listdir(here))
    done = draw(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith(message) and len(done.error) < 400
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize("aspect", ["", "16x9", "17:1", "0:0"])
def test_what_is_no_aspect(run: Run, small: str, aspect: str) -> None:
    done = run("generate", "x", "--model", small, "--aspect", aspect)
    assert done.status == 2 and done.error.startswith("--aspect must be")
    done = run("generate", "x", "--model", small, "--aspect", "1:1", "--megapixels", "99")
    assert done.status == 2 and done.error.startswith("--megapixels must be from")


def test_a_preview_in_a_file(draw: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    save = preview.save_picture
    monkeypatch.setattr(preview, "save_picture", lambda *a, **k: (saved.append(a), save(*a, **k)))
    assert draw("--preview", "now.png", "-o", "a.png").status == 0
    assert len(saved) == 2  # one for each step
    with Image.open("now.png") as picture:
        assert picture.size == (32, 32) and picture.info == {}
    assert sorted(os.listdir(here)) == ["a.png", "now.png"]


def test_a_preview_that_cannot_be_written_stops_nothing(
    draw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise preview.RequestError("cannot write now.png: No space left on device")

    monkeypatch.setattr(preview, "save_picture", fail)
    done = draw("--preview", "now.png", "-o", "a.png")
    assert done.status == 0 and Path("a.png").exists()
    assert done.err == "warning: no more previews: cannot write now.png: No space left on device\n"


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM_PROGRAM": "Apple_Terminal", "TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({}, None),
    ],
)
def test_terminals(environment: dict[str, str], protocol: str | None) -> None:
    assert preview.terminal_protocol(environment) == protocol


def test_kittys_chunks_are_the_picture() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    escape = preview.kitty_escape(Image.fromarray(pixels))
    chunks = [piece.removesuffix("\x1b\\") for piece in escape.split("\x1b_G")[1:]]
    heads, texts = zip(*(chunk.split(";") for chunk in chunks), strict=True)
    assert [head.rpartition("m=")[2] for head in heads] == ["1"] * (len(heads) - 1) + ["0"]
    assert max(map(len, texts)) <= 4096
    with Image.open(io.BytesIO(base64.b64decode("".join(texts)))) as picture:
        assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.slow
def test_a_terminal_that_shows_pictures(
    here: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("TERM", "xterm-kitty")
    status, shown = on_a_terminal(
        "a fox", *QUICK, "--model", small, "--preview", "-", "-o", "a.png"
    )
    assert status == 0 and shown.count("\x1b_Ga=T") == 2
    assert shown.count("\x1b7") == shown.count("\x1b8") == 2
    # The picture's file is named below the preview.
    down = f"\x1b[{preview.ROWS + 1}B"
    assert shown.index(down) < shown.index("a.png")
