"""Each family of files against the dense merge of an independent writer, in float64.

Errors are relative to the adapter's effect, adapted less base, on the tiny random checkpoint.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.forms import VectorChange
from mlx_zimage.lora.targets import Targets, targets
from tests.make_checkpoint import KINDS, models, official_shapes, random_tensors
from tests.measures import as_float64, relative_error

from . import writers
from .writers import FAMILIES, Sample

Measure = Callable[[str, float, float], None]
Weights = Mapping[str, np.ndarray]
MERGED = 2e-6
# Other types than float32, with what each alone can show: an alpha of 1e10 that is infinite in
# float16, alphas and magnitudes of few digits, factors of one byte.
TYPES = (
    ("ai-toolkit, lokr", "F16"),
    ("ai-toolkit, lokr", "BF16"),
    ("ai-toolkit", "F8_E4M3"),
    ("musubi", "BF16"),
    ("kohya, both", "F16"),
    ("lycoris, lokr, both decomposed", "F16"),
    ("lycoris, oft, constrained", "BF16"),
    ("lycoris, dora inside", "BF16"),
    ("onetrainer, oft, kohya", "F16"),
    ("diff and set", "BF16"),
)
CASES = [*((family, "F32") for family in FAMILIES), *TYPES]
cases = pytest.mark.parametrize(("family", "kind"), CASES)


@pytest.fixture(scope="module")
def weights() -> Weights:
    shapes = official_shapes(models(KINDS["tiny"])["transformer"])
    return {key: value.astype(np.float64) for key, value in random_tensors(shapes)}


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("tiny")


@pytest.fixture(scope="module")
def places(folder: Path) -> Targets:
    return targets(Checkpoint.open(folder))


def sample(family: str, weights: Weights, kind: str = "F32", seed: int = 0) -> Sample:
    return writers.sample(family, {key: w.shape for key, w in weights.items()}, kind, seed)


def merged(adapter: Adapter, weights: Weights) -> dict[str, np.ndarray]:
    """Return what an adapter's forms make of these weights."""
    result = {}
    for path, change in adapter.changes["transformer"].items():
        key = f"{path}.weight"
        if isinstance(change, VectorChange):
            change_of = as_float64(change.values)
            result[key] = change_of if change.replaces else weights[key] + change_of
            continue
        if change.form is not None:
            weight = mx.array(weights[key].astype(np.float32))
            result[key] = as_float64(change.form.merged(weight))
        if change.bias is not None:
            base = weights.get(f"{path}.bias", np.zeros(len(weights[key])))
            result[f"{path}.bias"] = base + as_float64(change.bias)
    return result


@cases
def test_merged(
    family: str, kind: str, weights: Weights, places: Targets, tmp_path: Path, measure: Measure
) -> None:
    """Read a file: its forms merge into what the writer says, and into nothing else."""
    written = sample(family, weights, kind)
    adapter = Adapter.open(written.write(tmp_path / "lora"), places)
    assert [*adapter.changes] == ["transformer"]
    ours, expected = merged(adapter, weights), written.merged(weights)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        base = weights.get(key, np.zeros(value.shape))
        measure("LoRA forms, merged", relative_error(ours[key] - base, value - base), MERGED)
