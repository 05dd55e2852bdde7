"""The pictures and the noise of a pass, decided by the seed and the pass's number alone.

A resumed run goes on with the same numbers, as nothing has to be remembered but the pass.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..sampling.comfy_schedules import shifted

EPOCH, PASS = 0, 1  # streams of random numbers that must differ


@dataclass(frozen=True)
class Draw:
    """The random numbers of one pass."""

    sigmas: np.ndarray  # (B,), float32
    noise: np.ndarray  # (B, C, h, w), float32
    dropped: np.ndarray  # (B,), whether a caption is left out


class Order:
    """Batches of pictures of one size each; an epoch takes every picture once.

    The last batch of a size is completed with others of that size.
    """

    def __init__(self, sizes: Sequence[Hashable], batch: int, seed: int):
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for number, size in enumerate(sizes):
            groups[size].append(number)
        self._groups, self._batch, self._seed = list(groups.values()), batch, seed
        self.per_epoch = sum(-(-len(group) // batch) for group in self._groups)
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)

    def batch(self, number: int) -> list[int]:
        """Return the pictures of a pass."""
        epoch, place = divmod(number, self.per_epoch)
        return self._epoch(epoch)[place]

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng([self._seed, EPOCH, epoch])
        batches = []
        for group in self._groups:
            order = [group[i] for i in generator.permutation(len(group))]
            for start in range(0, len(order), self._batch):
                batches.append([order[(start + i) % len(order)] for i in range(self._batch)])
        return [batches[i] for i in generator.permutation(len(batches))]


@dataclass(frozen=True)
class Noise:
    """The noise levels of a run and what else is random in a pass."""

    seed: int
    levels: str
    shift: float
    dropout: float

    def draw(self, number: int, shape: tuple[int, ...]) -> Draw:
        """Return the numbers of a pass over latents of this shape."""
        generator = np.random.default_rng([self.seed, PASS, number])
        dropped = generator.random(shape[0]) < self.dropout
        sigmas = self._sigmas(generator, shape[0])
        return Draw(sigmas, generator.standard_normal(shape, np.float32), dropped)

    def _sigmas(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return levels in (0, 1]; those of a batch are spread evenly."""
        if self.levels == "uniform":
            even = (generator.permutation(count) + 1 - generator.random(count)) / count
        else:
            even = 1 / (1 + np.exp(-generator.standard_normal(count)))
        return np.asarray(shifted(even, self.shift), np.float32)
