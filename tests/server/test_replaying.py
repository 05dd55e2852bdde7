"""Replaying an uploaded picture, from its bytes alone."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlx_zimage import save_picture
from tests.lora.handmade import pair
from tests.lora.stored import write

from .conftest import SMALL, Running

KIND = {"Content-Type": "application/octet-stream"}


def upload(server: Running, data: bytes) -> Any:
    answer = server.ask("POST", "/api/metadata", data, KIND)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_picture_is_drawn_again_to_the_same_bytes(server: Running) -> None:
    job = server.draw(seed=11, steps=2)
    file = server.ask("GET", job["images"][0]["url"]).body
    told = upload(server, file)
    assert (told["differences"], told["unread"], told["loras"]) == ([], [], [])
    assert told["metadata"]["model"] == "demo"
    again = server.ask("POST", "/api/jobs", told["request"]).json
    *_, last = server.events(again["events"])
    drawn = server.ask("GET", last["images"][0]["url"]).body
    with Image.open(io.BytesIO(file)) as first, Image.open(io.BytesIO(drawn)) as second:
        assert first.tobytes() == second.tobytes()


def test_a_changed_picture_brings_its_source(server: Running) -> None:
    first = server.draw(seed=1)
    source = server.ask("GET", f"/api/history/{first['images'][0]['id']}").json
    assert source["large"] == []
    blue = Image.new("RGB", (64, 64), "blue")
    file = io.BytesIO()
    blue.save(file, "PNG")
    import base64

    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    job = server.draw(image=url, strength=0.5, steps=2)
    (image,) = job["images"]
    assert image["large"] == ["image"]
    assert job["request"].get("image") is None
    entry = server.ask("GET", f"/api/history/{image['id']}").json
    assert entry["request"]["image"].startswith("data:image/png;base64,")
    told = upload(server, server.ask("GET", image["url"]).body)
    assert told["request"]["image"] == entry["request"]["image"]


@pytest.mark.parametrize("ending", [".jpg", ".webp", ".avif"])
def test_other_formats(server: Running, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a{ending}"
    save_picture(Image.new("RGB", (64, 64)), file, {"request": SMALL, "index": 0})
    assert upload(server, file.read_bytes())["request"]["prompt"] == SMALL["prompt"]


def test_another_programs_picture(server: Running) -> None:
    info = PngInfo()
    text = "a fox\nNegative prompt: blurry\nSteps: 8, Sampler: Euler, Seed: 5, Size: 64x64, Odd: 1"
    info.add_text("parameters", text)
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG", pnginfo=info)
    told = upload(server, file.getvalue())
    assert (told["request"]["prompt"], told["request"]["seed"]) == ("a fox", 5)
    assert told["metadata"] == {}


@pytest.mark.parametrize("metadata", [None, {"request": {"prompt": 5}}, {"x": 1}])
def test_pictures_without_a_request(server: Running, metadata: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    save_picture(Image.new("RGB", (8, 8)), file, metadata)
    answer = server.ask("POST", "/api/metadata", file.read_bytes(), KIND)
    assert answer.status == 400
    assert str(tmp_path) not in answer.json["error"]["message"]


def test_loras_that_are_here_and_not(serve: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    write(folder / "chalk.safetensors", pair("transformer.layers.0.attention.to_q"), {})
    names = ("chalk", "other", "/etc/passwd")
    loras = [{"source": name, "scale": 0.5, "sha256": "x"} for name in names]
    file = tmp_path / "a.png"
    metadata = {"request": SMALL, "index": 0, "loras": loras}
    save_picture(Image.new("RGB", (64, 64)), file, metadata)
    with serve(lora_folder=folder) as own:
        told = upload(own, file.read_bytes())
    assert [(lora["name"], lora["here"]) for lora in told["loras"]] == [
        ("chalk", True),
        ("other", False),
        ("passwd", False),
    ]
