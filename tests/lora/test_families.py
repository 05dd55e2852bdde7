"""Each family of files against the dense merge of an independent writer, in float64.

Errors are relative to the adapter's effect, adapted less base, on the tiny random checkpoint.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.fuse import fused
from mlx_zimage.lora.source import Lora
from mlx_zimage.lora.targets import Targets, targets
from mlx_zimage.quantization.recipe import Quantization
from tests.make_checkpoint import KINDS, models, official_shapes, random_tensors
from tests.measures import as_float64, relative_error

from . import writers
from .effects import Weights, attach_error, attached, merged, running
from .writers import FAMILIES, Sample

Measure = Callable[[str, float, float], None]
FUSED = 5e-7  # 2.2e-7
ATTACHED = 2e-6  # 9.0e-7
SIXTEEN = 1e-2  # 8.4e-3: the rounding of outputs, of which the effect may be a part
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
FORMS = (
    "ai-toolkit",
    "peft, bias",
    "lycoris, lokr, w2 decomposed",
    "lycoris, loha",
    "lycoris, dora inside",
    "lycoris, oft, rescaled",
    "lycoris, boft, rescaled",
    "lycoris, glora",
    "onetrainer, oft",
    "diff and set",
)
"""Families that have every form between them."""
CASES = [*((family, "F32") for family in FAMILIES), *TYPES]
cases = pytest.mark.parametrize(("family", "kind"), CASES)


@pytest.fixture(scope="module")
def weights() -> Weights:
    shapes = official_shapes(models(KINDS["tiny"])["transformer"])
    return {key: value.astype(np.float64) for key, value in random_tensors(shapes)}


@pytest.fixture(scope="module")
def opened(checkpoint: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint.open(checkpoint("tiny"))


@pytest.fixture(scope="module")
def places(opened: Checkpoint) -> Targets:
    return targets(opened)


def sample(family: str, weights: Weights, kind: str = "F32", seed: int = 0) -> Sample:
    return writers.sample(family, {key: w.shape for key, w in weights.items()}, kind, seed)


@pytest.fixture(scope="module")
def transformer(opened: Checkpoint) -> Any:
    return opened["transformer"].load(mx.float32)


@cases
def test_family(
    family: str,
    kind: str,
    weights: Weights,
    places: Targets,
    opened: Checkpoint,
    transformer: Any,
    tmp_path: Path,
    measure: Measure,
) -> None:
    """Read a file: merged, attached and fused it does what its writer says, and nothing else."""
    written = sample(family, weights, kind)
    adapter = Adapter.open(written.write(tmp_path / "lora"), places)
    assert [*adapter.changes] == ["transformer"]
    expected = written.merged(weights)
    if expected.keys() <= weights.keys():
        before = opened["transformer"].tensors
        tensors = fused(opened, [(Lora(adapter.path), adapter)])["transformer"].tensors
        changed = {key for key in before if tensors[key] is not before[key]}
        ours = {key: as_float64(tensors[key].read()) for key in changed}
    else:  # a layer gains a bias, which files cannot hold
        ours = merged(adapter, weights)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        base = weights.get(key, np.zeros(value.shape))
        measure("LoRA fused, float32", relative_error(ours[key] - base, value - base), FUSED)
    some = {key: expected[key] for key in expected if key.rpartition(".")[0] in _every(5, written)}
    module = attached(transformer, (adapter, 1.0))
    measure("LoRA attached, float32", attach_error(transformer, module, weights, some), ATTACHED)


def _every(step: int, written: Sample) -> list[str]:
    """Return the paths of some of the modules that a file changes; `slow` tests take all."""
    paths = sorted({key.rpartition(".")[0] for key in written.keys})
    return paths[len(written.tensors) % step :: step]


class Packed:
    """A transformer on packed weights, and the weights that it runs."""

    def __init__(self, folder: Path, dtype: mx.Dtype, quantize: int | str):
        checkpoint = Checkpoint.open(folder)
        self.places = targets(checkpoint)
        self.module = checkpoint["transformer"].load(dtype, Quantization.parse(quantize))
        self.shapes = official_shapes(models(KINDS["even"])["transformer"])
        self.weights = running(self.module, self.shapes)


@pytest.fixture(scope="module")
def packed(checkpoint: Callable[[str], Path]) -> Callable[..., Packed]:
    loaded: dict[Any, Packed] = {}

    def load(dtype: mx.Dtype, quantize: int | str) -> Packed:
        if (dtype, quantize) not in loaded:
            loaded[dtype, quantize] = Packed(checkpoint("even"), dtype, quantize)
        return loaded[dtype, quantize]

    return load


def _check_packed(base: Packed, family: str, tmp_path: Path, every: int = 1) -> float:
    written = writers.sample(family, base.shapes)
    adapter = Adapter.open(written.write(tmp_path / "lora"), base.places)
    changed = attached(base.module, (adapter, 1.0))
    expected = written.merged(base.weights, modules=_every(every, written))
    return attach_error(base.module, changed, base.weights, expected)


@pytest.mark.parametrize(
    ("quantize", "family"), [*((4, family) for family in FORMS), *((8, f) for f in FORMS[::4])]
)
def test_form_on_packed_weights(
    quantize: int, family: str, packed: Callable[..., Packed], tmp_path: Path, measure: Measure
) -> None:
    """In bfloat16 an adapter's effect is there, to the rounding of the activations."""
    error = _check_packed(packed(mx.bfloat16, quantize), family, tmp_path, every=5)
    measure("LoRA attached to packed weights, bfloat16", error, SIXTEEN)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantize", "family"),
    [
        *((bits, family) for bits in (4, 8) for family in FAMILIES),
        *((mode, family) for mode in ("mxfp4", "nvfp4") for family in FORMS),
    ],
)
def test_family_on_packed_weights(
    quantize: int | str,
    family: str,
    packed: Callable[..., Packed],
    tmp_path: Path,
    measure: Measure,
) -> None:
    """Attached to packed weights, an adapter has all of its effect and no other."""
    error = _check_packed(packed(mx.float32, quantize), family, tmp_path)
    measure("LoRA attached to packed weights, float32", error, ATTACHED)
    (tmp_path / "bfloat16").mkdir()
    error = _check_packed(packed(mx.bfloat16, quantize), family, tmp_path / "bfloat16")
    measure("LoRA attached to packed weights, bfloat16", error, SIXTEEN)
