"""`generate`: pictures, their files, and what is refused before the work."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Request, ZImage, read_metadata
from tests.checkpoint.broken import copy, shards
from tests.cli.conftest import Run
from tests.lora.handmade import pair
from tests.lora.stored import write
from tests.measures import differing_pixels

QUICK = ("--size", "32", "--steps", "2")


@pytest.fixture
def draw(run: Run, small: str) -> Run:
    """Run `generate` on a small model, with a small picture."""

    def draw(*arguments: str) -> object:
        return run("generate", "--model", small, *QUICK, *arguments)

    return draw  # type: ignore[return-value]


def pixels(file: Path | str) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def test_a_picture(draw: Run, here: Path, small: str) -> None:
    done = draw("the red circle", "--seed", "7", "--output", "a.png")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("a.png  (seed 7, 32x32, 2 steps, ") and done.out.count("\n") == 1
    assert os.listdir(here) == ["a.png"]
    same = ZImage.load(small).generate("the red circle", width=32, height=32, steps=2, seed=7)
    assert differing_pixels(pixels("a.png"), same.image) < 1e-3


@pytest.mark.parametrize(
    "arguments",
    [
        (
            "--prompt",
            "a fox",
            "--width",
            "32",
            "--height",
            "16",
            "--seed",
            "3",
            "--output",
            "a.png",
        ),
        ("-p", "a fox", "-W", "32", "-H", "16", "-s", "3", "-o", "a.png"),
        ("a fox", "--size", "32x16", "--seed=3", "-o", "a.png"),
        ("--size", "32x16", "--seed", "3", "--", "a fox"),
        ("--seed", "3", "a fox", "--size", "32x16"),
    ],
)
def test_ways_to_say_the_same(run: Run, here: Path, small: str, arguments: tuple[str, ...]) -> None:
    assert run("generate", "--model", small, "--steps", "1", *arguments).status == 0
    (file,) = os.listdir(here)
    request = read_metadata(file)["request"]
    named = ("prompt", "width", "height", "seed", "steps")
    assert [request[name] for name in named] == ["a fox", 32, 16, 3, 1]


def test_the_picture_remembers_its_request(draw: Run, small: str) -> None:
    draw("the red circle", "--output", "a.png", "--guidance", "2", "--negative-prompt", "é")
    data = read_metadata("a.png")
    request = Request.from_dict(data["request"])
    assert (request.prompt, request.negative_prompt, request.steps) == ("the red circle", "é", 2)
    assert data["model"] == small and data["mlx_zimage"]
    again = ZImage.load(small).generate(request)
    assert isinstance(again.image, Image.Image)
    assert differing_pixels(pixels("a.png"), again.image) < 1e-3


def test_guidance_on_comfyuis_scale(draw: Run) -> None:
    assert draw("x", "--cfg", "5", "-o", "a.png").status == 0
    assert read_metadata("a.png")["request"]["guidance"] == 4.0


def test_default_name_and_a_taken_one(draw: Run, here: Path) -> None:
    for _ in range(2):
        assert draw("x", "--seed", "5").status == 0
    assert sorted(os.listdir(here)) == ["zimage-5-2.png", "zimage-5.png"]


@pytest.mark.parametrize("seeds", [("1", "2", "3"), ("1-3",), ("1,2,3",), ("1,2", "3")])
def test_several_seeds(draw: Run, here: Path, seeds: tuple[str, ...]) -> None:
    done = draw("--seed", *seeds, "a fox", "--output", "a.png")
    assert done.status == 0, done.err
    names = ["a-1.png", "a-2.png", "a-3.png"]
    assert sorted(os.listdir(here)) == names
    assert [line.split()[0] for line in done.out.splitlines()] == names
    assert read_metadata("a-2.png")["request"]["seed"] == 2


def test_a_count_of_random_seeds(draw: Run, here: Path) -> None:
    assert draw("a fox", "--count", "3").status == 0
    files = sorted(os.listdir(here))
    seeds = {read_metadata(file)["request"]["seed"] for file in files}
    assert len(seeds) == 3 and files == sorted(f"zimage-{seed}.png" for seed in seeds)


def test_several_seeds_load_each_component_once(draw: Run) -> None:
    done = draw("a fox", "--seed", "1", "2", "3", "--memory", "staged", "--json")
    loads = [e["component"] for e in done.events if (e["event"], e.get("phase")) == LOAD]
    assert loads == ["text_encoder", "transformer", "vae"]


LOAD = ("started", "load")


@pytest.mark.parametrize(("name", "form"), [("a.jpg", "JPEG"), ("a.webp", "WEBP")])
def test_other_forms_in_a_new_folder(draw: Run, here: Path, name: str, form: str) -> None:
    assert draw("a fox", "-o", f"new/pics/{name}").status == 0
    with Image.open(here / "new/pics" / name) as image:
        assert (image.format, image.size) == (form, (32, 32))
    assert read_metadata(f"new/pics/{name}")["request"]["prompt"] == "a fox"


def test_a_folder_for_the_output(draw: Run, here: Path) -> None:
    assert draw("a fox", "--seed", "1", "2", "-o", "pics/").status == 0
    assert draw("a fox", "--seed", "1", "-o", "pics").status == 0
    assert sorted(os.listdir("pics")) == ["zimage-1-2.png", "zimage-1.png", "zimage-2.png"]


def test_json_is_all_there_is(draw: Run) -> None:
    done = draw("a fox", "--seed", "1-2", "--json", "--output", "a.png")
    assert (done.status, done.err) == (0, "")
    kinds = [event["event"] for event in done.events]
    assert set(kinds) == {"started", "finished", "step", "result"}
    assert kinds.count("step") == 4 and kinds[-1] == "result"
    last = done.events[-1]
    assert (last["file"], last["job"]) == ("a-2.png", 1)
    assert Request.from_dict(last["request"]).seed == 2


def test_quiet_prints_the_names(draw: Run) -> None:
    done = draw("word " * 600, "--seed", "1-2", "--quiet", "--output", "a.png")
    assert done.out == "a-1.png\na-2.png\n"
    assert done.err.startswith("warning: ") and done.err.count("\n") == 1


def test_an_estimate_draws_nothing(draw: Run, here: Path) -> None:
    text = draw("a fox", "--estimate", "--memory", "staged", "--seed", "1-3", "-o", "a.png")
    assert text.out.startswith("with --memory staged: encode 0.0")
    assert "\nat most 0.0" in text.out and text.out.endswith(" GB on this device\n")
    (event,) = draw("a fox", "--estimate", "--memory", "staged", "--json").events
    assert event["event"] == "estimate" and event["memory"] == "staged"
    assert 0 < max(event[name] for name in ("encode", "denoise", "decode")) == event["peak"]
    assert event["device"] > event["peak"]
    assert os.listdir(here) == []


def test_an_estimate_is_judged(draw: Run, run: Run, small: str) -> None:
    done = run("generate", "x", "--model", small, "--estimate", "--width", "17")
    assert done.status == 2 and done.error == "--width must be a multiple of 16, not 17"


def test_memory_that_was_chosen_is_told(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_zimage.device.memory", lambda: 12_000_000)
    done = draw("a fox")
    assert done.err.splitlines()[0].startswith("--memory ")
    assert "because the model is large for this device" in done.err
    assert draw("a fox", "--quiet").err == draw("a fox", "--json").err == ""


def test_latents_and_embeddings_in_and_out(run: Run, here: Path, small: str) -> None:
    generator = np.random.RandomState(0)
    np.save("latents.npy", generator.standard_normal((1, 16, 4, 4)))
    np.save("embeds.npy", generator.standard_normal((5, 48)).astype(np.float32))
    files = ["--latents", "latents.npy", "--prompt-embeds", "embeds.npy"]
    out = ["--save-latents", "new/out.npy", "--save-embeds", "caption.npy"]
    done = run("generate", *files, *out, "--steps", "2", "--model", small)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("zimage-latents.png  (32x32, 2 steps, ")
    made = ZImage.load(small).generate(
        latents=np.load("latents.npy"), prompt_embeds=np.load("embeds.npy"), steps=2
    )
    assert np.array_equal(np.load("new/out.npy"), np.array(made.latents))
    assert np.array_equal(np.load("caption.npy"), np.load("embeds.npy"))


def test_a_cut_prompt_is_told(draw: Run) -> None:
    done = draw("word " * 20_000 + "END", "--output", "a.png")
    assert done.status == 0
    warning = "warning: the prompt is longer than 512 tokens; ignored: '"
    assert done.err.startswith(warning) and "characters" in done.err
    assert done.err.count("\n") == 1 and len(done.err) < 200


def test_an_empty_prompt(draw: Run) -> None:
    assert draw("--prompt", "", "--output", "a.png").status == 0
    assert draw("", "--output", "b.png").status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "17"], "--width must be a multiple of 16, not 17"),
        (["--width", "0"], "--width must be a whole number from 1 to 8192, not 0"),
        (["--height", "-16"], "--height must be a whole number"),
        (["--width", "99999999"], "--width must be a whole number"),
        (["--size", "17x32"], "--width must be a multiple of 16"),
        (["--size", "32y"], "--size must be as 1024x768"),
        (["--size", "32", "--width", "32"], "--size sets width and height"),
        (["--steps", "0"], "--steps must be a whole number from 1 to 1000, not 0"),
        (["--guidance", "nan"], "--guidance must be a number from 0 to 1000"),
        (["--guidance", "inf"], "--guidance must be a number from 0 to 1000"),
        (["--guidance", "1e300"], "--guidance must be a number"),
        (["--guidance", "2", "--cfg", "3"], "--cfg and --guidance are one setting"),
        (["--cfg", "0"], "--cfg must be at least 1"),
        (["--negative-prompt", "x"], "--negative-prompt has no effect without guidance"),
        (["--cfg-truncation", "0.5"], "--cfg-truncation has no effect without guidance"),
        (["--cfg-truncation", "2"], "--cfg-truncation must be a number from 0 to 1"),
        (["--noise", "cuda"], "--noise must be 'torch-cpu'"),
        (["--schedule", "none"], "--schedule must be"),
        (["--schedule", "1,x"], "--schedule must be"),
        (["--schedule", "0.5,1"], "--schedule must be a name or"),
        (["--dtype", "int8"], "--dtype must be one of"),
        (["--dtype", ""], "--dtype must be one of"),
        (["--memory", "tiny"], "--memory must be one of"),
        (["--q", "7"], "--q must be one of"),
        (["--q", "four"], "--q must be one of"),
        (["--q", "9" * 5000], "--q must be one of"),
        (["--no-cache"], "--no-cache has no effect without --q"),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--seed", "x"], "--seed must be whole numbers"),
        (["--seed", "1", "1"], "--seed makes one picture for each seed"),
        (["--seed", "1", "2", "--save-latents", "x.npy"], "--save-latents and --save-embeds"),
        (["--count", "0"], "--count must be from 1 to 1000, not 0"),
        (["--count", "2", "--seed", "1"], "--count draws random seeds"),
        (["--prompt", "y"], "two prompts are given: 'x' and --prompt"),
        (["--output", ""], "--output must name a file or a folder"),
        (["--output", "fox"], "--output must end in one of"),
        (["--quiet", "--json"], "--quiet has no effect with --json"),
        (["--model", ""], "the model must be a name"),
        (["--model", "demo", "--download"], "'demo' is on this machine; there is nothing"),
        (["--model", "turbo", "--download", "--offline"], "--download and --offline exclude"),
        (["--revision", "main"], "a revision is for the Hub"),
        (["stray"], "unexpected argument: 'stray'; a text of several words needs quotes"),
    ],
)
def test_wrong_usage(run: Run, here: Path, small: str, arguments: list[str], message: str) -> None:
    model = [] if "--model" in arguments else ["--model", small]
    done = run("generate", "x", *model, *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith(message) and len(done.error) < 400
    assert os.listdir(here) == []


def test_a_prompt_is_needed(run: Run, small: str) -> None:
    done = run("generate", "--model", small)
    assert done.status == 2 and done.error == 'a prompt is needed: generate "a red fox"'
    np.save("embeds.npy", np.ones((5, 48), np.float32))
    done = run("generate", "x", "--prompt-embeds", "embeds.npy", "--model", small)
    assert done.status == 2 and "either a prompt or --prompt-embeds, and got both" in done.error
    np.save("latents.npy", np.ones((1, 16, 4, 4), np.float32))
    done = run("generate", "x", "--latents", "latents.npy", "--seed", "3", "--model", small)
    assert done.status == 2 and done.error.startswith("--seed has no effect with latents")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "a.bmp"], "the output must end in .png, .jpg"),
        (["--output", "x" * 300 + ".png"], "cannot write"),
        (["--output", "/proc/a.png"], "cannot write /proc/a.png"),
        (["--output", "taken.png"], "taken.png exists already; name another file, or"),
        (["--save-latents", "a.npy", "--save-embeds", "./a.npy"], "a.npy and a.npy are the same"),
        (["--latents", "none.npy"], "none.npy cannot be read as a .npy array: No such file"),
        (["--latents", "none.npy", "--seed", "3"], "none.npy cannot be read"),
        (["--latents", "taken.png"], "taken.png cannot be read as a .npy array"),
        (["--model", "nowhere"], "no such checkpoint: nowhere"),
        (["--model", "x" * 5000], "no such checkpoint"),
        (["--model", "two\nlines"], "no such checkpoint: two\\nlines"),
        (["--model", "."], ". is no checkpoint"),
        (["--model", "turbo", "--offline"], "Tongyi-MAI/Z-Image-Turbo is not on this machine"),
    ],
)
def test_refused(run: Run, here: Path, small: str, arguments: list[str], message: str) -> None:
    Path("taken.png").write_text("mine")
    model = [] if "--model" in arguments else ["--model", small]
    done = run("generate", "x", *model, *arguments)
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith(message) and len(done.error) < 400
    assert os.listdir(here) == ["taken.png"]
    assert Path("taken.png").read_text() == "mine"


def test_a_prompt_of_broken_bytes(run: Run, small: str) -> None:
    done = run("generate", os.fsdecode(b"\xff"), "--model", small)
    assert done.status == 2 and done.error.startswith("--prompt must be valid Unicode")


def test_over_a_file_where_that_is_allowed(draw: Run) -> None:
    Path("a.png").write_text("old")
    assert draw("x", "--output", "a.png", "--overwrite").status == 0
    assert pixels("a.png").shape == (32, 32, 3)


def test_a_broken_checkpoint(run: Run, here: Path, checkpoint: Callable[[str], Path]) -> None:
    folder = copy(checkpoint("small"), here / "ck")
    file = shards(folder / "transformer")[0]
    file.write_bytes(file.read_bytes()[:-1])
    done = run("generate", "x", *QUICK, "--model", "ck")
    assert done.status == 1 and "is truncated" in done.error
    assert os.listdir(here) == ["ck"]


def test_a_prompt_without_a_word_that_the_demo_knows(run: Run, here: Path) -> None:
    """A hint tells what it draws; no other model and no other prompt gets one."""
    quick = ("generate", "--model", "demo", "--size", "32", "--steps", "1")
    done = run(*quick, "a red fox")
    hint = 'demo draws shapes, letters and digits on a plain background, like "a red circle on'
    assert done.status == 0 and done.err.startswith(hint) and done.err.count("\n") == 1
    (event,) = [e for e in run(*quick, "--json", "a red fox").events if e["event"] == "hint"]
    assert event["example"] == "a red circle on a blue background"
    assert run(*quick, "a red star").err == ""
    module = "diffusion_model.layers.0.attention.to_q"
    write(Path("fox.safetensors"), pair(module, rows=192, columns=192))
    done = run(*quick, "a red fox", "--lora", "fox.safetensors")  # which may teach it a fox
    assert done.status == 0 and done.err.startswith("LoRA fox") and done.err.count("\n") == 1
