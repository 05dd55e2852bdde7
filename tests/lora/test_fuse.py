"""LoRAs merged into a checkpoint's weights by a conversion."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Conversion, Lora, LoraError, ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.family import MANIFEST
from mlx_zimage.quantization.recipe import Quantization, pack
from tests.measures import relative_error

from .writers import Sample, sample

FAMILIES = (
    "musubi",
    "lycoris, lokr, w2 decomposed",
    "lycoris, dora, columns",
    "lycoris, boft",
    "lycoris, norms and biases",
    "diff and set",
)


def _convert(source: Path, out: Path, **options: Any) -> Checkpoint:
    list(convert_checkpoint(Conversion.plan(source, **options), out))
    return Checkpoint.open(out)


def _float64(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    tensors = checkpoint["transformer"].tensors
    return {key: np.array(t.read().astype(mx.float32), np.float64) for key, t in tensors.items()}


@pytest.fixture(scope="module")
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("even")


@pytest.fixture(scope="module")
def opened(source: Path) -> Checkpoint:
    return Checkpoint.open(source)


@pytest.fixture(scope="module")
def samples(opened: Checkpoint) -> dict[str, Sample]:
    shapes = {key: tensor.shape for key, tensor in opened["transformer"].tensors.items()}
    return {family: sample(family, shapes) for family in FAMILIES}


@pytest.fixture(scope="module")
def files(samples: dict[str, Sample], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("loras")
    return {name: each.write(folder / re.sub(", ", "-", name)) for name, each in samples.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_merged_as_in_float64(
    family: str,
    source: Path,
    opened: Checkpoint,
    samples: dict[str, Sample],
    files: dict[str, Path],
) -> None:
    """The error relative to the change of a tensor is at most 1.2e-7."""
    merged = Conversion.plan(source, dtype="float32", loras=[Lora(files[family], 0.7)]).checkpoint
    before, after = _float64(opened), _float64(merged)
    expected = before | samples[family].merged(before, 0.7)
    for key in before:
        if key not in samples[family].keys:
            assert np.array_equal(after[key], before[key]), key
        else:
            change = expected[key] - before[key]
            assert relative_error(after[key] - before[key], change) < 3e-7, key


def test_numbers_are_rounded_once(source: Path, files: dict[str, Path], tmp_path: Path) -> None:
    loras = [Lora(files["musubi"], 0.7), Lora(files["lycoris, boft"], -0.3)]
    exact = Conversion.plan(source, loras=loras).checkpoint["transformer"].tensors
    written = _convert(source, tmp_path / "out", loras=loras[::-1])["transformer"].tensors
    for key, tensor in written.items():
        assert mx.array_equal(tensor.read(), exact[key].read().astype(mx.bfloat16)), key
    off = Conversion.plan(source, loras=[Lora(files["musubi"], 0)]).checkpoint["transformer"]
    assert all(tensor.entries for tensor in off.tensors.values())  # read as the file has them


def test_weights_are_quantized_from_the_merged_numbers(
    source: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    out, loras = tmp_path / "out", [Lora(files["musubi"], 0.7)]
    written = _convert(source, out, quantize=4, loras=loras)["transformer"]
    exact = Conversion.plan(source, loras=loras).checkpoint["transformer"].tensors
    packing = Quantization.parse(4).packing
    for path in ("layers.0.attention.to_v", "layers.1.feed_forward.w2"):
        tensor = written.tensors[f"{path}.weight"]
        assert tensor.packing == packing
        assert tensor.packed_rows is not None
        rows = tensor.shape[0]
        expected = pack(exact[f"{path}.weight"], packing, mx.bfloat16, 0, rows)
        for ours, theirs in zip(tensor.packed_rows(0, rows), expected, strict=True):
            assert mx.array_equal(ours, theirs)
    with pytest.raises(LoraError, match="is quantized, and a LoRA would be lost in its steps"):
        Conversion.plan(out, loras=loras)
    ZImage.load(out, loras=loras)  # attached instead


def test_the_manifest_lists_them(source: Path, files: dict[str, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    loras = [Lora(files["musubi"], 0.7)]
    _convert(source, first, loras=loras)
    listed = json.loads((first / MANIFEST).read_text())["loras"]
    digest = hashlib.sha256(files["musubi"].read_bytes()).hexdigest()
    assert listed == [{"source": "musubi", "scale": 0.7, "sha256": digest}]
    assert "transformer" in [*verify_checkpoint(first)]
    _convert(first, second, quantize=8, loras=[Lora(files["diff and set"])])
    again = json.loads((second / MANIFEST).read_text())["loras"]
    assert [entry["source"] for entry in again] == ["musubi", "diff and set"]


def test_a_bias_that_has_no_place_is_refused(
    source: Path, opened: Checkpoint, tmp_path: Path
) -> None:
    shapes = {key: tensor.shape for key, tensor in opened["transformer"].tensors.items()}
    file = sample("peft, bias", shapes).write(tmp_path / "bias")
    with pytest.raises(LoraError, match=r"adds a bias to .*, which has none"):
        Conversion.plan(source, loras=[file])
    ZImage.load(source, loras=[file])
