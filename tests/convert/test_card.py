"""Model cards, read back by the Hub's own library."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from mlx_zimage import Conversion, convert_checkpoint, verify_checkpoint
from mlx_zimage.convert.card import CARD, card, record_errors
from mlx_zimage.hub.locate import DEMO

MANIFEST = {
    "source": "folder",
    "revision": None,
    "model": "turbo",
    "dtype": "bfloat16",
    "calibration": None,
    "target": None,
    "versions": {"mlx": "1", "mlx-zimage": "2"},
}


def _convert(source: Path, out: Path, **options: Any) -> ModelCard:
    title = options.pop("title", None)
    for _ in convert_checkpoint(Conversion.plan(source, **options), out, title=title):
        pass
    return ModelCard.load(out / CARD)


@pytest.fixture
def turbo(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint where the Hub's cache has the official one."""
    folder = tmp_path / "models--Tongyi-MAI--Z-Image-Turbo" / "snapshots" / "abc123"
    shutil.copytree(checkpoint("even"), folder)
    return folder


def test_a_card(turbo: Path, tmp_path: Path) -> None:
    out = tmp_path / "turbo-4bit"
    read = _convert(turbo, out, quantize=4, text_encoder=8)
    assert read.data.to_dict() == {
        "license": "apache-2.0",
        "library_name": "mlx",
        "pipeline_tag": "text-to-image",
        "base_model": "Tongyi-MAI/Z-Image-Turbo",
        "base_model_relation": "quantized",
        "tags": ["mlx", "z-image", "mlx-zimage", "8-bit", "4-bit"],
    }
    assert read.text.startswith("\n# turbo-4bit\n")
    assert "at revision `abc123`" in read.text
    size = (out / "transformer/diffusion_pytorch_model.safetensors").stat().st_size
    row = next(line for line in read.text.splitlines() if line.startswith("| transformer"))
    assert row.startswith("| transformer | 4 bits, groups of 64, the other layers bfloat16 | ")
    assert float(row.split()[-3]) == pytest.approx(size / 1e6, abs=0.1)  # its header apart
    assert "generate" in read.text and "--model turbo-4bit" in read.text
    assert CARD in [*verify_checkpoint(out)]


def test_another_program_and_name(turbo: Path, tmp_path: Path) -> None:
    read = _convert(turbo, tmp_path / "out", target="mflux", title="owner/z-image-mflux")
    about = read.data.to_dict()
    assert (about["library_name"], about["tags"][0]) == ("mflux", "mflux")
    assert "base_model_relation" not in about  # nothing is quantized
    assert "# z-image-mflux\n" in read.text and "--model owner/z-image-mflux" in read.text


def test_what_the_source_says_of_itself_stays(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(checkpoint("even"), source)
    terms = "license: other\nlicense_name: mine\nlicense_link: https://example.org/a?b=c#d"
    (source / CARD).write_text(f"---\n{terms}\nbase_model: owner/tuned\n---\nIts text.\n")
    about = _convert(source, tmp_path / "one").data.to_dict()
    assert (about["license"], about["license_name"]) == ("other", "mine")
    assert about["license_link"] == "https://example.org/a?b=c#d"
    assert about["base_model"] == "owner/tuned"
    again = _convert(tmp_path / "one", tmp_path / "two", quantize=4).data.to_dict()
    assert again == about | {
        "base_model_relation": "quantized",
        "tags": ["mlx", "z-image", "mlx-zimage", "4-bit"],
    }


@pytest.mark.parametrize("text", ["", "no front matter", "---\n- a list\n---\n", "---\n{:\n---\n"])
def test_nothing_is_claimed_that_nobody_said(
    checkpoint: Callable[[str], Path], tmp_path: Path, text: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(checkpoint("even"), source)
    (source / CARD).write_text(text)
    about = _convert(source, tmp_path / "out").data.to_dict()
    assert {*about} == {"library_name", "pipeline_tag", "tags"}


def test_the_demo_is_free() -> None:
    conversion = Conversion.plan(DEMO)
    text = card(conversion.checkpoint, MANIFEST, conversion.packings, {"vae": 1}, "x")
    assert ModelCard(text).data.license == "apache-2.0"


def test_what_was_measured(turbo: Path, tmp_path: Path) -> None:
    """It is known after the card, and the folder verifies still."""
    out = tmp_path / "out"
    _convert(turbo, out, quantize=4)
    record_errors(out, 0.0123, 0.0456)
    text = ModelCard.load(out / CARD).text
    assert "1.23% of the text encoder's output, 4.56% of the transformer's" in text
    assert text.count("holds the recipe") == 1
    assert CARD in [*verify_checkpoint(out)]
    assert json.loads((out / "mlx_zimage.json").read_text())["report"]["velocity"] == 0.0456


def test_how_it_was_made(turbo: Path) -> None:
    conversion = Conversion.plan(turbo, quantize=4)
    made = {
        **MANIFEST,
        "calibration": {"prompts": 32},
        "loras": [{"source": "style", "scale": 0.8}],
    }
    text = card(conversion.checkpoint, made, conversion.packings, {"vae": 1}, "yes: [no]")
    assert "over 32 prompts" in text and "Merged into the weights: `style` at 0.8." in text
    assert ModelCard(text).data.pipeline_tag == "text-to-image"


@pytest.mark.parametrize(
    ("target", "model", "use"),
    [
        ("diffusers", "turbo", "num_inference_steps=8, guidance_scale=0.0"),
        ("diffusers", "base", "num_inference_steps=50, guidance_scale=4.0"),
        ("mflux", "turbo", "mflux-generate-z-image-turbo --model x "),
        ("mflux", "base", "mflux-generate-z-image --model x "),
    ],
)
def test_the_use_fits_the_model(target: str, model: str, use: str) -> None:
    """Programs' defaults are those of Base, with which Turbo draws poorly."""
    conversion = Conversion.plan(DEMO)
    about = {**MANIFEST, "model": model, "target": target}
    assert use in card(conversion.checkpoint, about, conversion.packings, {"vae": 1}, "x")
