"""LoRAs by name: what a client may ask for, and what it may not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage.server.failures import Refusal
from mlx_zimage.server.loras import LoraShelf
from mlx_zimage.server.settings import Settings
from tests.lora.handmade import pair
from tests.lora.stored import write

from .conftest import SMALL

DEMO_WIDTH = 192


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a LoRA that fits, one that does not, and one outside that a link leads to."""
    place = tmp_path / "loras"
    (place / "styles").mkdir(parents=True)
    module = "layers.0.attention.to_q"
    fitting = pair(f"transformer.{module}", rows=DEMO_WIDTH, columns=DEMO_WIDTH)
    write(place / "styles" / "chalk.safetensors", fitting, {})
    write(place / "other.safetensors", pair(f"transformer.{module}"), {})
    write(tmp_path / "outside.safetensors", fitting, {})
    os.symlink(tmp_path / "outside.safetensors", place / "link.safetensors")
    return place


def test_a_job_draws_with_them(serve: Callable[..., Any], folder: Path) -> None:
    with serve(lora_folder=folder) as own:
        assert own.ask("GET", "/api/capabilities").json["features"]["loras"]
        listed = {lora["name"]: lora for lora in own.ask("GET", "/api/loras").json["loras"]}
        assert {*listed} == {"styles/chalk", "other"}  # what lies outside is not there
        assert listed["styles/chalk"]["ranks"] == [2]
        assert "which must be (2, 192)" in listed["other"]["error"]
        assert str(folder) not in listed["other"]["error"]
        chosen = [{"name": "styles/chalk", "scale": 0.5}]
        plain, drawn = own.draw(seed=1), own.draw(seed=1, loras=chosen)
        assert drawn["loras"] == chosen
        files = [own.ask("GET", job["images"][0]["url"]).body for job in (plain, drawn)]
        assert files[0] != files[1]
        assert own.draw(seed=1)["loras"] == []  # the next job draws without
        axis = [{"field": "lora:styles/chalk", "values": [0, 1]}]
        assert own.draw(sweep=axis)["sweep"]["columns"] == ["chalk 0", "chalk 1"]
        failed = own.draw(loras=[{"name": "other"}])
        assert (failed["state"], failed["error"]["code"]) == ("failed", "invalid_lora")
        assert own.draw()["state"] == "done"


@pytest.mark.parametrize(
    "name",
    [
        "link",
        "../outside",
        "/etc/passwd",
        "styles/../styles/chalk",
        "./styles/chalk",
        "styles//chalk",
        "~/x",
        "owner/repo/file",
        "nothing",
        "..",
        "",
        "a\0b",
        "x" * 5000,
        "styles\\chalk",
        "pytorch_lora.bin",
    ],
)
def test_other_names_are_refused(folder: Path, name: str) -> None:
    (folder / "pytorch_lora.bin").write_bytes(b"\x80\x04.")
    shelf = LoraShelf(Settings(lora_folder=folder))
    with pytest.raises(Refusal) as refused:
        shelf.check([name])
    assert refused.value.status == 404
    shelf.check(["styles/chalk", "other"])


def test_without_a_folder_none_may_be_named() -> None:
    with pytest.raises(Refusal, match="no LoRA folder"):
        LoraShelf(Settings()).check(["style"])


def test_names_are_judged_before_the_queue(serve: Callable[..., Any], folder: Path) -> None:
    with serve(lora_folder=folder) as own:
        answer = own.ask("POST", "/api/jobs", {**SMALL, "loras": [{"name": "../outside"}]})
        assert (answer.status, answer.json["error"]["code"]) == (404, "lora_not_found")
        assert own.ask("GET", "/api/jobs").json == {"jobs": []}
