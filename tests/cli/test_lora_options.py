"""--lora and --lora-folder in `generate`, `sweep` and --replay."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mlx_zimage import read_metadata, save_picture
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.hub.locate import DEMO
from tests.lora.writers import sample

from .conftest import Run

STRANGE: list[tuple[Any, Any]] = [("x", "1"), (3, 1), ("../\0", 1), ("", 1), ("y", True)]
SMALL = ("a fox", "--model", "demo", "--size", "32", "--steps", "1", "--seed", "1")


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two LoRAs for the demo."""
    folder = tmp_path_factory.mktemp("loras")
    tensors = Checkpoint.open(DEMO)["transformer"].tensors
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    for family, name in (("peft", "style"), ("musubi", "detail")):
        sample(family, shapes, "BF16").write(folder / name)
    return folder


def test_loras_act_are_told_and_can_be_replayed(run: Run, here: Path, loras: Path) -> None:
    folder = ("--lora-folder", str(loras))
    detail = str(loras / "detail.safetensors")
    done = run("generate", *SMALL, *folder, "--lora", "style:0.2", "--lora", detail, "-o", "a.png")
    assert done.status == 0
    assert "LoRA style at 0.2: LoRA of rank 1 to 5, changes 61 of 61 modules" in done.err
    assert "LoRA detail at 1: LoRA of rank 4, changes 35 of 49 modules" in done.err
    listed = read_metadata(here / "a.png")["loras"]
    assert [(entry["source"], entry["scale"]) for entry in listed] == [("style", 0.2), (detail, 1)]
    with Image.open(here / "a.png") as picture:
        text = str(picture.info["parameters"])
        first = picture.tobytes()
    assert text.startswith("a fox <lora:style:0.2> <lora:detail:1.0>\n")
    again = run("generate", "--replay", "a.png", *folder, "-o", "b.png")
    assert "not the same" not in again.err
    with Image.open(here / "b.png") as picture:
        assert picture.tobytes() == first


@pytest.mark.slow
def test_replay_says_which_loras_differ(run: Run, here: Path, loras: Path, tmp_path: Path) -> None:
    run("generate", *SMALL, "--lora-folder", str(loras), "--lora", "style:0.2", "-o", "a.png")
    missing = run("generate", "--replay", "a.png", "-o", "b.png")
    assert "not the same as in the picture: the LoRA style (0.2) is missing" in missing.err
    file = str(loras / "style.safetensors")
    scaled = run("generate", "--replay", "a.png", "--lora", f"{file}:0.3", "-o", "c.png")
    assert f"the LoRA {file} acts with 0.3, and did 0.2" in scaled.err
    other = tmp_path / "style.safetensors"
    other.write_bytes((loras / "detail.safetensors").read_bytes())
    changed = run("generate", "--replay", "a.png", "--lora-folder", str(tmp_path), "-o", "d.png")
    assert "the LoRA style is another file by its SHA-256" in changed.err


def test_pictures_with_strange_loras_are_replayed(run: Run, here: Path) -> None:
    run("generate", *SMALL, "-o", "a.png")
    metadata = dict(read_metadata(here / "a.png"))
    strange = [{"source": source, "scale": scale} for source, scale in STRANGE]
    with Image.open(here / "a.png") as picture:
        save_picture(picture, here / "b.png", {**metadata, "loras": strange}, overwrite=True)
    assert run("generate", "--replay", "b.png", "-o", "c.png").status == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lora", "stile"], "no such LoRA: stile; did you mean style?"),
        (["--lora", "style:1e9"], "a LoRA's scale must be a number from -100 to 100"),
        (["--lora", "style", "--lora", "style:0.5"], "style is listed twice; name it once"),
        (["--lora", "style:nan"], "a LoRA's scale must be a number from -100 to 100, not nan"),
        (["--lora", "style:"], "a LoRA's scale must be a number, as in style:0.8, not ''"),
        (["--lora", "style:0,8"], "a LoRA's scale must be a number, as in style:0.8, not '0,8'"),
        (["--lora", ":0.5"], "no such LoRA: :0.5; name a .safetensors file"),
        (["--lora", ""], "a LoRA must be a path or a name, not ''"),
        (["--lora", "https://a.org/x.safetensors"], "no such LoRA: https://a.org/x.safetensors"),
        (["--lora", "."], ". must hold PEFT's adapter_config.json, which is missing"),
        (["--lora", "half.safetensors"], "half.safetensors is truncated"),
        (["--lora", "page.safetensors"], "page.safetensors is truncated or no safetensors file"),
        (["--lora", "old.pt"], "old.pt is a pickle by its name"),
        (["--lora", "a/b/c.safetensors"], "allow the download of a/b/c.safetensors (--download)"),
    ],
)
def test_what_is_refused(run: Run, loras: Path, options: list[str], message: str) -> None:
    whole = (loras / "style.safetensors").read_bytes()
    Path("half.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("page.safetensors").write_text("<html>not found</html>")
    Path("old.pt").write_bytes(b"")
    done = run("generate", *SMALL, "--lora-folder", str(loras), *options)
    assert done.status == 1
    assert message in done.error


def test_a_folder_that_is_not_there(run: Run) -> None:
    done = run("generate", *SMALL, "--lora-folder", "nowhere")
    assert (done.status, done.error) == (1, "the LoRA folder nowhere is not there")


def test_a_sweep_over_scales_loads_the_model_once(run: Run, here: Path, loras: Path) -> None:
    words = ("sweep", *SMALL, "--lora-folder", str(loras), "--lora", "style:0,0.2", "--json")
    words = tuple("--size=32" if word == "--size" else word for word in words if word != "32")
    done = run(*words)
    assert done.status == 0
    loads = [e for e in done.events if e["event"] == "started" and e["phase"] == "load"]
    assert [event["component"] for event in loads] == ["text_encoder", "transformer", "vae"]
    data = json.loads((here / "sweep/sweep.json").read_text())
    assert data["axes"] == [{"name": "loras", "labels": ["style 0", "style 0.2"]}]
    assert [cell["loras"] for cell in data["cells"]] == [["style:0"], ["style:0.2"]]
    files = [here / "sweep" / cell["file"] for cell in data["cells"]]
    assert [read_metadata(file)["loras"][0]["scale"] for file in files] == [0, 0.2]
    again = run(*words)
    assert not [e for e in again.events if e["event"] == "started"]
