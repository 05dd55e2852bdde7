"""`sweep`: several values of some options, on a contact sheet."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from mlx_zimage import read_metadata
from tests.cli.conftest import Done, Run

LOAD = ("started", "load")


@pytest.fixture
def draw(run: Run, small: str) -> Run:
    def draw(*arguments: str) -> object:
        return run("sweep", "a fox", "--model", small, *arguments)

    return draw  # type: ignore[return-value]


def loads(done: Done) -> list[str]:
    return [e["component"] for e in done.events if (e["event"], e.get("phase")) == LOAD]


def pictures(folder: str = "sweep") -> list[str]:
    return sorted(os.listdir(f"{folder}/pictures"))


def test_a_sheet(draw: Run, here: Path) -> None:
    done = draw("--steps", "1,2", "--seed", "1-2", "--size", "32")
    lines = done.err.splitlines()
    assert done.status == 0 and len(lines) == 2
    assert lines[0].startswith("4 pictures (2 seeds x 2 steps); at most 0.0")
    assert lines[1].startswith("about ") and lines[1].endswith(" for the other 3")
    assert done.out.splitlines()[-3:] == ["sweep/sheet.png", "sweep/sheet.html", "sweep/sweep.json"]
    assert pictures() == [f"seed-{seed}_steps-{n}.png" for seed in (1, 2) for n in (1, 2)]
    request = read_metadata("sweep/pictures/seed-2_steps-1.png")["request"]
    assert (request["seed"], request["steps"], request["width"]) == (2, 1, 32)
    with Image.open("sweep/sheet.png") as sheet:
        assert sheet.size[0] > 2 * 32
    assert "<img" in Path("sweep/sheet.html").read_text("utf-8")
    data = json.loads(Path("sweep/sweep.json").read_text("utf-8"))
    assert [axis["name"] for axis in data["axes"]] == ["seed", "steps"]
    assert all(cell["seconds"] > 0 for cell in data["cells"])


@pytest.mark.slow
def test_24_pictures_of_the_demo_load_the_model_once(run: Run) -> None:
    values = ("--steps", "1,2,3,4", "--seed", "1-3", "--guidance", "0,0.5")
    done = run("sweep", "a red circle on a blue background", "--model", "demo", *values, "--json")
    assert done.status == 0, done.err
    assert loads(done) == ["text_encoder", "transformer", "vae"]
    assert sum(event["event"] == "result" for event in done.events) == 24
    first = done.events[0]
    assert (first["event"], first["pictures"], first["kept"]) == ("sweep", 24, 0)
    assert 0 < first["peak"] < first["device"]


def test_staged_components_are_loaded_once(draw: Run) -> None:
    done = draw("--steps", "1,2", "--seed", "1-2", "--size", "32", "--memory", "staged", "--json")
    assert loads(done) == ["text_encoder", "transformer", "vae"]


def test_each_precision_is_loaded_once(run: Run, checkpoint: object) -> None:
    source = str(checkpoint("even"))  # type: ignore[operator]
    options = ("--size", "32", "--steps", "1", "--seed", "1-2", "--q", "none,8", "--json")
    done = run("sweep", "a fox", "--model", source, *options)
    assert done.status == 0, done.err
    assert loads(done).count("transformer") == 2
    stored = [read_metadata(f"sweep/pictures/{name}")["quantize"] for name in pictures()]
    assert sorted(stored, key=str) == [8, 8, None, None]


def test_going_on(draw: Run, here: Path) -> None:
    options = ("--steps", "1,2", "--size", "32")
    assert draw(*options).status == 0
    Path("sweep/pictures/steps-1.png").unlink()
    kept = Path("sweep/pictures/steps-2.png").read_bytes()
    done = draw("--steps", "1,2,3", "--size", "32")
    assert done.err.startswith("3 pictures, 1 of them are there already; at most")
    assert done.out.count("(seed 0") == 2
    assert Path("sweep/pictures/steps-2.png").read_bytes() == kept
    data = json.loads(Path("sweep/sweep.json").read_text("utf-8"))
    assert [cell["seconds"] is not None for cell in data["cells"]] == [True] * 3
    done = draw("--steps", "1,2,3", "--size", "32", "--json")
    assert loads(done) == [] and done.events[0]["kept"] == 3
    assert draw(*options, "--overwrite").out.count("(seed 0") == 2


def test_another_request_needs_another_folder(draw: Run) -> None:
    assert draw("--steps", "1,2", "--size", "32").status == 0
    done = draw("--steps", "1,2", "--size", "48")
    assert done.status == 1
    assert "holds a picture of another request; name another folder, or pass --o" in done.error
    assert draw("--steps", "1,2", "--size", "48", "-o", "other").status == 0


def test_a_foreign_sheet_is_not_replaced(draw: Run) -> None:
    Path("sweep").mkdir()
    Path("sweep/sheet.png").write_text("mine")
    done = draw("--steps", "1,2", "--size", "32")
    assert done.status == 1 and "sheet.png exists already" in done.error
    assert Path("sweep/sheet.png").read_text() == "mine"


def test_an_interrupted_sweep_keeps_its_pictures(
    draw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_zimage.cli import sweep

    save, count = sweep.save_picture, iter(range(10))

    def interrupted(*arguments: object, **options: object) -> None:
        if next(count) == 2:
            raise KeyboardInterrupt
        save(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "save_picture", interrupted)
    assert draw("--steps", "1,2,3", "--size", "32").status == 130
    assert pictures() == ["steps-1.png", "steps-2.png"]


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ("--size 32,48x32", ["32x32", "48x32"]),
        ("--aspect 1:1,2:1", ["1:1 (64x64)", "2:1 (96x48)"]),
        ("--aspect 1:1 --megapixels 0.002,0.005", ["1:1 (48x48)", "1:1 (64x64)"]),
        ("--sampler euler,dpmpp_2m", ["sampler euler", "sampler dpmpp_2m"]),
        ("--schedule simple,beta", ["schedule simple", "schedule beta"]),
        ("--shift 3,6.5", ["shift 3", "shift 6.5"]),
        ("--variety 0,0.5", ["variety 0", "variety 0.5"]),
        ("--noise torch-cpu,mlx", ["noise torch-cpu", "noise mlx"]),
        ("--guidance 0,2 --negative-prompt snow", ["guidance 0", "guidance 2"]),
        ("--image image.png --strength 0.5,1", ["strength 0.5", "strength 1"]),
        ("--dtype float32,bfloat16", ["dtype float32", "dtype bfloat16"]),
    ],
)
def test_axes(draw: Run, options: str, columns: list[str]) -> None:
    Image.new("RGB", (32, 32), "red").save("image.png")
    sized = [] if "--size" in options or "--aspect" in options else ["--size", "32"]
    done = draw(*options.split(), *sized, "--steps", "2")
    assert done.status == 0, done.err
    data = json.loads(Path("sweep/sweep.json").read_text("utf-8"))
    assert data["axes"][0]["labels"] == columns


def test_prompts_with_braces(run: Run, small: str) -> None:
    options = ("--model", small, "--size", "32", "--steps", "1")
    assert run("sweep", "a {red|blue} fox", *options).status == 0
    assert pictures() == ["blue.png", "red.png"]
    prompts = {read_metadata(f"sweep/pictures/{name}")["request"]["prompt"] for name in pictures()}
    assert prompts == {"a red fox", "a blue fox"}
    assert "a {red|blue} fox, seed 0" in Path("sweep/sheet.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps="], "--steps has an empty value"),
        (["--steps", "1,,2"], "--steps has an empty value"),
        (["--steps", "x"], "--steps must be whole numbers, as 4,8"),
        (["--steps", "4-1"], "--steps must be a range that rises"),
        (["--steps", "1-9999999"], "--steps must be a range that rises, of at most 1000"),
        (["--steps", "4,4"], "a sweep needs different values of steps"),
        (["--steps", "0,4"], "--steps must be a whole number from 1"),
        (["--guidance", "a,b"], "--guidance must be numbers, as 0,0.5,1"),
        (["--cfg-truncation", "a"], "--cfg-truncation must be numbers"),
        (["--steps", "1-1000", "--seed", "1-1000"], "a sweep may have at most 1000 pictures, not"),
        (["--seed", "1-99999999"], "--seed lists the range"),
        (["--seed", "x"], "--seed must be whole numbers"),
        (["--size", "17"], "--width must be a multiple of 16"),
        (["--size", "32,"], "--size has an empty value"),
        (["--size", "32", "--aspect", "1:1"], "--aspect sets width and height"),
        (["--aspect", "x"], "--aspect must be as 16:9"),
        (["--megapixels", "1"], "--megapixels has no effect without --aspect"),
        (["--sampler", "euler,magic"], "--sampler must be euler"),
        (["--q", "none,7"], "--q must be one of"),
        (["--dtype", "int8"], "--dtype must be one of"),
        (["--strength", "0.5,1"], "--strength has no effect without an image"),
        (["--image", "none.png"], "image none.png cannot be read"),
        (["--no-cache"], "--no-cache has no effect without --q"),
        (["--output", ""], "--output must name a folder"),
        (["--quiet", "--json"], "--quiet has no effect with --json"),
        (["dog"], "unexpected argument: 'dog'"),
    ],
)
def test_wrong_usage(draw: Run, here: Path, options: list[str], message: str) -> None:
    done = draw(*options)
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith(message) and len(done.error) < 400
    assert os.listdir(here) == []


def test_a_prompt_is_needed(run: Run, small: str) -> None:
    done = run("sweep", "--model", small, "--steps", "1,2")
    assert done.status == 2 and done.error.startswith("a prompt is needed")


def test_models_are_an_axis(run: Run, small: str, checkpoint: object) -> None:
    other = str(checkpoint("even"))  # type: ignore[operator]
    options = ("--model", f"{small},{other}", "--size", "32", "--steps", "1")
    done = run("sweep", "a fox", *options)
    assert done.status == 0, done.err
    models = {read_metadata(f"sweep/pictures/{name}")["model"] for name in pictures()}
    assert models == {small, other}
    assert run("sweep", "a fox", "--model", f"{small},nowhere").status == 1
