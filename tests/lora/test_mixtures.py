"""Random files: forms, names, ranks, alphas, types and targets mixed, several files at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.targets import Targets, targets

from . import deltas
from .deltas import AB, DOWN_UP, Merge
from .effects import Weights, attach_error, attached, running
from .writers import ATTENTION, Sample, comfy, flat

MIXED = 1e-5  # 1.8e-6, and 5.1e-6 in the 400 of the slow tests
PREFIXES = ("", "transformer.", "diffusion_model.", "model.diffusion_model.", "lora_unet_")
PREFIXES += ("lycoris_", "lora_transformer_", "base_model.model.")
TAILS = (AB, DOWN_UP, ("lora.down.weight", "lora.up.weight"), ("lora_A", "lora_B"))
NAMED = ("lora_A.default.weight", "lora_B.default.weight")
KINDS = ("F32", "F16", "BF16", "F8_E4M3")


class Mixture:
    """A random file in the making."""

    def __init__(self, shapes: Any, seed: int):
        self.rng = np.random.default_rng([2611, seed])
        self.sample = Sample(shapes, self.rng, self.any_of(KINDS))
        self.prefix = self.any_of(PREFIXES)

    def any_of(self, choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def fill(self, modules: int) -> Sample:
        """Change some modules, and a block's fused matrix or not."""
        paths = self.sample.linears()
        if self.rng.random() < 0.3:
            block = self.any_of(self.sample.blocks())
            parts = [f"{block}.{path}" for path in ATTENTION[:3]]
            paths = [path for path in paths if path not in parts]
            out, width = self.sample.shape(parts[0])
            put = self._putter(f"{block}.attention.qkv")
            merge = self._form(put, (3 * out, width), splits=True)
            self.sample.change([f"{part}.weight" for part in parts], merge)
        for number in self.rng.permutation(len(paths))[:modules]:
            module = paths[number]
            put = self._putter(module)
            self.sample.change(f"{module}.weight", self._form(put, self.sample.shape(module)))
            if self.rng.random() < 0.2:
                bias = deltas.added(put, self.rng, (self.sample.shape(module)[0],), "diff_b")
                self.sample.change(f"{module}.bias", bias)
        return self.sample

    def _putter(self, module: str) -> deltas.Put:
        name = comfy(module) if self.rng.random() < 0.5 else module
        name = flat(name) if self.prefix.endswith("_") else name
        return self.sample.putter(f"{self.prefix}{name}.")

    def _form(self, put: deltas.Put, shape: tuple[int, int], splits: bool = False) -> Merge:
        """Write a random form; one that `splits` can be told apart by rows."""
        forms = [self._low_rank, self._hadamard, self._kronecker]
        if self.rng.random() < 0.3:
            inner = self.any_of(forms)(put, shape)
            axis = "rows" if splits else self.any_of(("rows", "columns"))
            return deltas.decomposed(put, self.rng, shape, inner, axis=axis)
        forms += [self._glora, self._rotation]
        forms += [] if splits else [self._dense, self._block_rotation]
        merge: Merge = self.any_of(forms)(put, shape)
        return merge

    def _rank(self) -> dict[str, Any]:
        """Return a rank and an alpha, which no type rounds."""
        return {"rank": int(self.rng.integers(1, 9)), "alpha": self.any_of((None, 0.5, 1.0, 12.0))}

    def _low_rank(self, put: deltas.Put, shape: tuple[int, int]) -> Merge:
        tails = self.any_of((*TAILS, NAMED))
        return deltas.low_rank(put, self.rng, shape, tails=tails, **self._rank())

    def _hadamard(self, put: deltas.Put, shape: tuple[int, int]) -> Merge:
        return deltas.hadamard(put, self.rng, shape, **self._rank())

    def _kronecker(self, put: deltas.Put, shape: tuple[int, int]) -> Merge:
        small = tuple(self.any_of([d for d in range(1, n + 1) if n % d == 0]) for n in shape)
        ranks = {f"rank{n}": self.any_of((None, 1, 3)) for n in (1, 2)}
        alpha = self.any_of((None, 2.0))
        return deltas.kronecker(put, self.rng, shape, small, alpha=alpha, **ranks)  # type: ignore[arg-type]

    def _glora(self, put: deltas.Put, shape: tuple[int, int]) -> Merge:
        old = bool(self.rng.random() < 0.3)
        return deltas.glora(put, self.rng, shape, old=old, **self._rank())

    def _rotation(self, put: deltas.Put, shape: tuple[int, int]) -> Merge:
        block = self.any_of([b for b in (4, 8, 12, 16) if shape[1] % b == 0])
        options = {"shared": self.any_of((False, True)), "scaled": self.any_of((None, "BOOL"))}
        return deltas.input_rotation(put, self.rng, shape, block, **options)

    def _block_rotation(self, put: deltas.Put, shape: tuple[int, int]) -> Merge:
        options = {"rescale": self.any_of((False, True)), "constraint": self.any_of((0.0, 0.0625))}
        if self.rng.random() < 0.5:
            return deltas.butterfly(put, self.rng, shape, 8, **options)
        block = self.any_of([b for b in (4, 8, 16) if shape[0] % b == 0])
        return deltas.output_rotation(put, self.rng, shape, block, **options)

    def _dense(self, put: deltas.Put, shape: tuple[int, int]) -> Merge:
        return deltas.added(put, self.rng, shape, "diff")


@pytest.fixture(scope="module")
def opened(checkpoint: Callable[[str], Path]) -> Checkpoint:
    return Checkpoint.open(checkpoint("tiny"))


@pytest.fixture(scope="module")
def places(opened: Checkpoint) -> Targets:
    return targets(opened)


@pytest.fixture(scope="module")
def transformer(opened: Checkpoint) -> Any:
    return opened["transformer"].load(mx.float32)


@pytest.fixture(scope="module")
def weights(opened: Checkpoint, transformer: Any) -> Weights:
    return running(transformer, opened["transformer"].needed)


def _check(
    seeds: range, modules: int, weights: Weights, places: Targets, base: Any, tmp_path: Path
) -> float:
    """Attach one to three random files at once, and return the error of the sum of effects."""
    errors = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        expected: dict[str, np.ndarray] = {}
        adapters = []
        for part in range(int(rng.integers(1, 4))):
            written = Mixture({k: w.shape for k, w in weights.items()}, 10 * seed + part)
            sample = written.fill(modules)
            strength = float(rng.choice([-0.75, 0.25, 1.0, 1.5]))
            file = sample.write(tmp_path / f"{seed}-{part}")
            adapters.append((Adapter.open(file, places), strength))
            for key, value in sample.merged(weights, strength).items():
                unchanged = weights.get(key, np.zeros(value.shape))
                expected[key] = expected.get(key, unchanged) + value - unchanged
        try:
            errors.append(attach_error(base, attached(base, *adapters), weights, expected))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        assert errors[-1] < MIXED, f"seed {seed}"
    return max(errors)


@pytest.mark.slow
def test_mixtures(
    weights: Weights,
    places: Targets,
    transformer: Any,
    tmp_path: Path,
    measure: Callable[[str, float, float], None],
) -> None:
    error = _check(range(50), 4, weights, places, transformer, tmp_path)
    measure("LoRA mixtures, float32", error, MIXED)


@pytest.mark.slow
def test_many_mixtures(
    weights: Weights,
    places: Targets,
    transformer: Any,
    tmp_path: Path,
    measure: Callable[[str, float, float], None],
) -> None:
    error = _check(range(50, 450), 8, weights, places, transformer, tmp_path)
    measure("LoRA mixtures, float32", error, MIXED)
