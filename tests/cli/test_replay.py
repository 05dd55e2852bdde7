"""`generate --replay`: the same picture again, or with some options changed."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlx_zimage import Request, ZImage, read_metadata, save_picture
from tests.cli.conftest import Run

QUICK = ("--size", "32", "--steps", "2", "--seed", "7")


@pytest.fixture
def draw(run: Run, small: str) -> Run:
    def draw(*arguments: str) -> object:
        return run("generate", "--model", small, *QUICK, *arguments)

    return draw  # type: ignore[return-value]


def stored(file: str) -> Request:
    return Request.from_dict(read_metadata(file)["request"])


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".avif"])
def test_the_same_bytes(run: Run, draw: Run, ending: str) -> None:
    name, again = f"a{ending}", f"b{ending}"
    assert draw("a fox", "-o", name).status == 0
    done = run("generate", "--replay", name, "-o", again)
    assert (done.status, done.err) == (0, "")
    assert Path(name).read_bytes() == Path(again).read_bytes()


def random_options(chance: random.Random, image: str, mask: str) -> list[str]:
    """Return options of all kinds that go together."""
    options = ["--seed", str(chance.randrange(2**32)), "--steps", str(chance.randint(1, 3))]
    if chance.random() < 0.4:
        options += ["--guidance", "1.5", "--negative-prompt", "snow, fog"]
    if chance.random() < 0.5:
        options += ["--sampler", chance.choice(["euler", "euler_ancestral", "dpmpp_2m"])]
    if chance.random() < 0.5:
        options += ["--schedule", chance.choice(["simple", "beta", "normal"]), "--shift", "2.5"]
    if chance.random() < 0.3:
        options += ["--variation-of", "5", "--variation-strength", "0.4"]
    if chance.random() < 0.3:
        options += ["--variety", "0.3"]
    if chance.random() < 0.5:
        options += ["--image", image, "--strength", "0.9"]
        options += ["--mask", mask] if chance.random() < 0.5 else []
    if chance.random() < 0.3:
        options += ["--noise", "mlx"]
    if chance.random() < 0.3:
        options += ["--q", "8"]
    return [*options, "--size", chance.choice(["32", "48x32", "32x64"])]


@pytest.mark.slow
def test_random_requests_of_all_kinds(run: Run, checkpoint: object) -> None:
    """20 requests, and 20 times the same bytes."""
    source = str(checkpoint("even"))  # type: ignore[operator]
    pixels = np.random.RandomState(0).randint(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save("image.png")
    Image.fromarray((np.indices((40, 40))[1] > 20).astype(np.uint8) * 255).save("mask.png")
    chance = random.Random(12)
    for number in range(20):
        options = random_options(chance, "image.png", "mask.png")
        first, again = f"{number}.png", f"{number}-again.png"
        done = run("generate", f"picture {number}", "--model", source, *options, "-o", first)
        assert done.status == 0, (options, done.err)
        assert (done := run("generate", "--replay", first, "-o", again)).status == 0, done.err
        assert Path(first).read_bytes() == Path(again).read_bytes(), options


def test_the_default_name_has_the_pictures_ending(run: Run, draw: Run) -> None:
    assert draw("a fox", "-o", "a.jpg").status == 0
    assert run("generate", "--replay", "a.jpg").out.startswith("zimage-7.jpg ")


def test_options_beside_it_change_it(run: Run, draw: Run) -> None:
    assert draw("a fox", "-o", "a.png").status == 0
    changed = ("--steps", "1", "--width", "48", "--prompt", "a bird")
    assert run("generate", "--replay", "a.png", *changed, "-o", "b.png").status == 0
    assert stored("b.png") == stored("a.png").replace(steps=1, width=48, prompt="a bird")
    assert run("generate", "--replay", "a.png", "--seed", "1-2", "-o", "c.png").status == 0
    assert [stored(f"c-{n}.png").seed for n in (1, 2)] == [1, 2]
    assert run("generate", "--replay", "a.png", "--count", "2", "-o", "pics/").status == 0
    assert len({stored(str(file)).seed for file in Path("pics").iterdir()}) == 2


def test_what_cannot_act_gives_way(run: Run, draw: Run, small: str) -> None:
    guided = ("--guidance", "2", "--negative-prompt", "snow", "-o", "a.png")
    assert draw("a fox", *guided).status == 0
    assert run("generate", "--replay", "a.png", "--guidance", "0", "-o", "b.png").status == 0
    assert stored("b.png").negative_prompt is None
    levels = ("--schedule", "1,0.7,0.3", "-o", "c.png")
    assert run("generate", "--replay", "a.png", *levels).status == 0
    assert stored("c.png").steps == 3
    np.save("latents.npy", np.ones((1, 16, 4, 4), np.float32))
    assert (
        run("generate", "--replay", "a.png", "--latents", "latents.npy", "-o", "d.png").status == 0
    )
    assert stored("d.png").seed is None
    assert run("generate", "--replay", "d.png", "--seed", "3", "-o", "e.png").status == 0
    assert stored("e.png").latents is None


@pytest.mark.slow
def test_the_model_and_its_bits_are_those_of_the_picture(
    run: Run, checkpoint: object, small: str
) -> None:
    source = str(checkpoint("even"))  # type: ignore[operator]
    options = ("--model", source, "--q", "8", "--dtype", "bfloat16", *QUICK, "-o", "a.png")
    assert run("generate", "a fox", *options).status == 0
    assert run("generate", "--replay", "a.png", "-o", "b.png").status == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    done = run("generate", "--replay", "a.png", "--model", small, "-o", "c.png")
    assert done.status != 0 or "identity" in done.err
    done = run("generate", "--replay", "a.png", "--q", "4", "-o", "d.png")
    assert done.err == "warning: not the same as in the picture: quantize is 4, and was 8\n"
    done = run("generate", "--replay", "a.png", "--q", "4", "-o", "e.png", "--json")
    warned = [event["message"] for event in done.events if event["event"] == "warning"]
    assert warned == ["not the same as in the picture: quantize is 4, and was 8"]


def test_a_converted_checkpoint(run: Run, checkpoint: object) -> None:
    source = str(checkpoint("even"))  # type: ignore[operator]
    assert run("convert", source, "converted", "--q", "8").status == 0
    assert run("generate", "a fox", "--model", "converted", *QUICK, "-o", "a.png").status == 0
    assert read_metadata("a.png")["quantize"] == 8
    done = run("generate", "--replay", "a.png", "-o", "b.png")
    assert (done.status, done.err) == (0, "")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_one_picture_of_a_batch(run: Run, small: str) -> None:
    results = ZImage.load(small).generate(["a", "b"], seed=[1, 2], width=32, height=32, steps=1)
    metadata = {**results[1].metadata, "model": small}
    save_picture(results[1].image, "b.png", metadata)
    assert run("generate", "--replay", "b.png", "-o", "again.png").status == 0
    assert Path("b.png").read_bytes() == Path("again.png").read_bytes()


def test_a_picture_of_another_program(run: Run, small: str) -> None:
    info = PngInfo()
    text = "a fox\nNegative prompt: snow\nSteps: 2, Sampler: DPM++ 2M, CFG scale: 2.5, Seed: 9, "
    info.add_text("parameters", f"{text}Size: 32x32, Clip skip: 2")
    Image.new("RGB", (32, 32)).save("foreign.png", pnginfo=info)
    done = run("generate", "--replay", "foreign.png", "--model", small, "-o", "a.png")
    assert done.status == 0
    assert done.err == "warning: not read from the picture: Clip skip: 2\n"
    request = stored("a.png")
    assert (request.prompt, request.negative_prompt, request.seed) == ("a fox", "snow", 9)
    assert (request.sampler, request.guidance) == ("dpmpp_2m", 1.5)


def test_no_metadata(run: Run, draw: Run) -> None:
    assert draw("a fox", "--no-metadata", "-o", "a.png").status == 0
    with Image.open("a.png") as image:
        assert image.info == {}
    done = run("generate", "--replay", "a.png")
    assert done.status == 2 and done.error.startswith("a.png holds no request")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replay", "none.png"], "none.png cannot be read as a picture: No such file"),
        (["--replay", "text.png"], "text.png cannot be read as a picture"),
        (["--replay", "plain.png"], "plain.png holds no request"),
        (["--replay", "."], ". cannot be read as a picture"),
        (["--replay", "plain.png", "--prompt-file", "x"], "--replay has a prompt"),
        (["--replay", "plain.png", "a red fox", "a blue fox"], "--replay makes one picture again"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], message: str) -> None:
    Path("text.png").write_text("text")
    Image.new("RGB", (4, 4)).save("plain.png")
    done = run("generate", *arguments)
    assert done.status == 2 and done.error.startswith(message)
