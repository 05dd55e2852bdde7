"""The `parameters` text beside our metadata, and pictures of other programs."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlx_zimage import Request, RequestError, replay, save_picture
from mlx_zimage.images.files import read_foreign_metadata
from mlx_zimage.images.parameters import read_parameters, write_parameters

PICTURE = Image.new("RGB", (32, 32), "red")
METADATA: dict[str, Any] = {
    "request": {
        "prompt": 'a "red" fox,\nin the snow: 狐狸',
        "negative_prompt": "blurry, dark",
        "steps": 8,
        "seed": 42,
        "width": 128,
        "height": 96,
        "guidance": 1.5,
        "sampler": "dpmpp_2m",
        "schedule": "beta",
    },
    "index": 0,
    "model": "demo, the small one",
    "mlx_zimage": "0.1.0",
}
FOREIGN = (
    "a red fox, <lora:snow:0.8>\nin two lines\n"
    "Negative prompt: blurry, low quality\n"
    "Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 965400086, "
    'Size: 512x768, Model hash: 6ce0161689, Model: v1-5, Lora hashes: "snow: e3b0, b: c4", '
    "Version: v1.10.1"
)
"""A text as the web UI's documentation shows it."""


def test_our_text() -> None:
    assert write_parameters(METADATA) == (
        'a "red" fox,\nin the snow: 狐狸\nNegative prompt: blurry, dark\n'
        "Steps: 8, Sampler: DPM++ 2M, Schedule type: beta, CFG scale: 2.5, Seed: 42, "
        'Size: 128x96, Model: "demo, the small one", Version: mlx-zimage 0.1.0'
    )


def test_there_and_back() -> None:
    fields, unread = read_parameters(write_parameters(METADATA))
    request = METADATA["request"]
    assert fields == {name: request[name] for name in request if name != "schedule"}
    assert [line.partition(":")[0] for line in unread] == ["Schedule type", "Model", "Version"]


def test_one_picture_of_a_batch() -> None:
    request = {"prompt": ["a", "b"], "negative_prompt": "c", "seed": [1, 2], "steps": 8}
    text = write_parameters({"request": request, "index": 1})
    assert text.startswith("b\nNegative prompt: c\nSteps: 8")
    assert "Seed: 2" in text


def test_another_programs_text() -> None:
    fields, unread = read_parameters(FOREIGN)
    assert fields == {
        "prompt": "a red fox,\nin two lines",
        "negative_prompt": "blurry, low quality",
        "steps": 20,
        "sampler": "euler_ancestral",
        "guidance": 6.0,
        "seed": 965400086,
        "width": 512,
        "height": 768,
    }
    assert unread == [
        "LoRA snow at 0.8",
        "Schedule type: Karras",
        "Model hash: 6ce0161689",
        "Model: v1-5",
        "Lora hashes: snow: e3b0, b: c4",
        "Version: v1.10.1",
    ]


@pytest.mark.parametrize("text", ["a fox", "a fox\nand a hen", "Steps", "a: b, c: d"])
def test_a_text_without_settings_is_a_prompt(text: str) -> None:
    assert read_parameters(text) == ({"prompt": text}, [])


@pytest.mark.parametrize("value", ["²", "9" * 5000, "-1", "٣", "1e999", ""])
def test_numbers_that_are_none(value: str) -> None:
    settings = f"Steps: {value}, CFG scale: {value}, Seed: {value}, Size: {value}x{value}"
    fields, unread = read_parameters(f"x\n{settings}")
    assert fields == {"prompt": "x"}
    assert len(unread) == 4


@pytest.mark.parametrize("piece", ["a", " ", "a ", "a:", 'a:"', 'a:"\\",', "<lora:a", "<lora:a:"])
@pytest.mark.parametrize("start", ["x\nSteps: 8, ", "x"])
def test_a_text_takes_time_by_its_length(piece: str, start: str) -> None:
    """A picture of anybody's must not keep the process busy: no search begins anew and anew."""

    def work(count: int) -> float:
        text, least = start + piece * count + "y", math.inf
        for _ in range(3):
            began = time.thread_time()  # of this thread alone, however busy the machine is
            read_parameters(text)
            least = min(least, time.thread_time() - began)
        return least

    assert work(16_000) < 40 * work(1000)  # measured: 16 to 19 times; a search anew: 256 times


def test_a_text_of_a_megabyte_is_not_read(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a" * 1_000_000 + "\nSteps: 8")
    PICTURE.save(tmp_path / "a.png", pnginfo=info)
    assert read_foreign_metadata(tmp_path / "a.png") is None
    with pytest.raises(RequestError, match="holds no request"):
        replay(tmp_path / "a.png")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".avif"])
def test_other_programs_find_it(tmp_path: Path, ending: str) -> None:
    """In the places where they look: PNG's text, EXIF's user comment."""
    file = tmp_path / f"a{ending}"
    save_picture(PICTURE, file, METADATA)
    with Image.open(file) as image:
        if ending == ".png":
            text = getattr(image, "text", {})["parameters"]
        else:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            text = comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert text == write_parameters(METADATA)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".avif"])
def test_no_metadata(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a{ending}"
    save_picture(PICTURE, file, None)
    assert b"mlx" not in file.read_bytes() and b"parameters" not in file.read_bytes()
    with pytest.raises(RequestError, match="holds no request"):
        replay(file)


def test_replaying_another_programs_picture(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", FOREIGN)
    PICTURE.save(tmp_path / "a.png", pnginfo=info)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + FOREIGN.encode("utf-16-be")
    PICTURE.save(tmp_path / "a.jpg", exif=exif)
    for name in ("a.png", "a.jpg"):
        found = replay(tmp_path / name, seed=1)
        assert (found.request.steps, found.request.seed, found.request.width) == (20, 1, 512)
        assert "Model: v1-5" in found.unread and not found.metadata
        assert read_foreign_metadata(tmp_path / name) == read_parameters(FOREIGN)


def test_what_cannot_be_replayed(tmp_path: Path) -> None:
    save_picture(PICTURE, tmp_path / "a.png", {"request": {"prompt": "x"}, "index": 3})
    with pytest.raises(RequestError, match="has the index 3"):
        replay(tmp_path / "a.png")
    save_picture(PICTURE, tmp_path / "b.png", {"request": {"prompt": "x", "zzz": 1}})
    with pytest.raises(RequestError, match=r"b\.png: a request has no field 'zzz'"):
        replay(tmp_path / "b.png")
    save_picture(PICTURE, tmp_path / "c.png", {"index": 0})
    with pytest.raises(RequestError, match="holds no request in its metadata"):
        replay(tmp_path / "c.png")
    save_picture(PICTURE, tmp_path / "d.png", {"request": Request("x", seed=1).to_dict()})
    assert replay(tmp_path / "d.png", seed=2).request == Request("x", seed=2)
