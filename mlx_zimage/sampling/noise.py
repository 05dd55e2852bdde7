"""Noise from a seed: torch's on a CPU, torch's on a CUDA card, or MLX's own.

The first two let a seed give the same picture here as in diffusers. On a CUDA card torch draws in
an order that depends on how many threads the card can hold, so that kind names the card.
"""

import os
import re
from collections.abc import Sequence
from math import prod
from typing import Protocol

import mlx.core as mx
import numpy as np

from ..errors import RequestError

TORCH_CPU = "torch-cpu"
TORCH_CUDA = "torch-cuda"
MLX = "mlx"

GPUS = {  # streaming multiprocessors, threads each can hold
    "b200": (148, 2048),
    "h200": (132, 2048),
    "h100": (132, 2048),
    "a100": (108, 2048),
    "v100": (80, 2048),
    "t4": (40, 1024),
    "l4": (58, 1536),
    "l40s": (142, 1536),
    "a10": (72, 1536),
    "a6000": (84, 1536),
    "5090": (170, 1536),
    "4090": (128, 1536),
    "4080": (76, 1536),
    "3090": (82, 1536),
    "3080": (68, 1536),
    "3060": (28, 1536),
}
BLOCK = 256  # threads in one block of torch's random kernels


class Generator(Protocol):
    """A stream of normal numbers."""

    def normal(self, count: int) -> np.ndarray:
        """Return the next `count` of them, in float32."""
        ...


class NoiseStream:
    """Draws normal noise from a request's seeds, in the order in which torch would draw it.

    One seed draws for a whole batch at once; of several, each draws one row of the batch.
    """

    def __init__(self, kind: str, seeds: int | Sequence[int]):
        self._single: Generator | None = None
        self._rows: list[Generator] = []
        if isinstance(seeds, int):
            self._single = generator(kind, seeds)
        else:
            self._rows = [generator(kind, seed) for seed in seeds]

    def draw(self, shape: tuple[int, ...]) -> mx.array:
        """Return the next noise of this shape, (B, ...) in float32."""
        if self._single is not None:
            return mx.array(self._single.normal(prod(shape)).reshape(shape))
        if shape[0] > len(self._rows):
            raise RequestError(f"{len(self._rows)} seeds cannot draw for {shape[0]} pictures")
        rows = [g.normal(prod(shape[1:])) for g in self._rows[: shape[0]]]
        return mx.array(np.stack(rows).reshape(shape))


class VariedNoise(NoiseStream):
    """The noise of some seeds, turned toward another's; each picture's keeps its length.

    At strength 0 it is exactly the base's, at 1 exactly the other's.
    """

    def __init__(self, base: NoiseStream, other: NoiseStream, strength: float):
        self._base, self._other, self._strength = base, other, strength

    def draw(self, shape: tuple[int, ...]) -> mx.array:
        base, other = (np.array(s.draw(shape), np.float64) for s in (self._base, self._other))
        return mx.array(slerp(base, other, self._strength).astype(np.float32))


def slerp(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """Turn each row of `start`, (B, ...), toward that of `end` by a share of their angle."""
    a, b = start.reshape(len(start), -1), end.reshape(len(end), -1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    angle = np.arccos(np.clip((a * b).sum(axis=1) / lengths, -1, 1))[:, None]
    sine = np.sin(angle)
    is_flat = sine < 1e-6  # equal or opposite rows have no plane to turn in
    divisor = np.where(is_flat, 1, sine)
    left = np.where(is_flat, 1 - share, np.sin((1 - share) * angle) / divisor)
    right = np.where(is_flat, share, np.sin(share * angle) / divisor)
    return np.asarray((left * a + right * b).reshape(start.shape))


def shifted_seeds(seeds: int | Sequence[int], by: int) -> int | tuple[int, ...]:
    """Return other seeds, for noise that must differ from these seeds' own."""
    if isinstance(seeds, int):
        return (seeds + by) % 2**64
    return tuple((seed + by) % 2**64 for seed in seeds)


def draw(kind: str, seeds: int | Sequence[int], shape: tuple[int, ...]) -> mx.array:
    """Return the first noise that these seeds draw."""
    return NoiseStream(kind, seeds).draw(shape)


def generator(kind: str, seed: int) -> Generator:
    """Return a new stream of the named kind."""
    if kind == MLX:
        return MlxGenerator(seed)
    if kind == TORCH_CPU:
        return TorchCpuGenerator(seed)
    return TorchCudaGenerator(seed, *gpu_profile(kind))


class MlxGenerator:
    """MLX's own numbers. The first draw uses the seed's key, each later one a key split from it."""

    def __init__(self, seed: int):
        self._key = mx.random.key(seed)
        self._is_first = True

    def normal(self, count: int) -> np.ndarray:
        if not self._is_first:
            self._key, _ = mx.random.split(self._key)
        self._is_first = False
        return np.array(mx.random.normal((count,), key=self._key))


def random_seed() -> int:
    return int.from_bytes(os.urandom(4), "little")


def check_kind(kind: str) -> None:
    if kind not in (TORCH_CPU, MLX):
        gpu_profile(kind)


def gpu_profile(kind: str) -> tuple[int, int]:
    """Return the multiprocessors and threads that a kind of noise names.

    The kind is 'torch-cuda:4090', or 'torch-cuda:128x1536' for a card that is not listed.
    """
    name = kind.partition(":")[2].lower()
    if kind.startswith(TORCH_CUDA + ":"):
        if name in GPUS:
            return GPUS[name]
        match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{2,4})", name)
        if match and int(match[2]) >= BLOCK:
            return int(match[1]), int(match[2])
    raise RequestError(
        f"noise must be '{TORCH_CPU}', '{MLX}' or '{TORCH_CUDA}:GPU', with GPU one of "
        f"{', '.join(GPUS)} or MULTIPROCESSORSxTHREADS, not {kind!r}"
    )


def torch_cpu(seed: int, count: int) -> np.ndarray:
    """Return what `torch.randn(count)` draws first from a CPU generator."""
    return TorchCpuGenerator(seed).normal(count)


class TorchCpuGenerator:
    """torch's numbers on a CPU: Mersenne Twister, Box-Muller in blocks of 16."""

    def __init__(self, seed: int):
        self._twister = np.random.RandomState(seed & 0xFFFFFFFF)
        self._next: float | None = None  # the second of a pair that was drawn in double precision

    def normal(self, count: int) -> np.ndarray:
        if count < 16:
            return self._few(count)
        full = count - count % 16  # the numbers in complete blocks
        words = np.frombuffer(self._twister.bytes(4 * count), "<u4")
        out = np.empty(count, np.float32)
        out[:full] = _blocks_of_16(words[:full])
        if full != count:  # torch draws the last 16 anew, over what is there
            out[-16:] = _blocks_of_16(np.frombuffer(self._twister.bytes(64), "<u4"))
        return out

    def _few(self, count: int) -> np.ndarray:
        """Draw below 16 numbers as torch does: one pair at a time, in double precision."""
        numbers = [] if self._next is None else [self._next]
        while len(numbers) < count:
            numbers += _pair(self._twister)
        self._next = numbers[count] if len(numbers) > count else None
        return np.array(numbers[:count], np.float32)


def _blocks_of_16(words: np.ndarray) -> np.ndarray:
    uniform = (words & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)
    blocks = uniform.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - blocks[:, 0]))
    angle = np.float32(2 * np.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _pair(twister: np.random.RandomState) -> list[float]:
    words = np.frombuffer(twister.bytes(16), "<u4").astype(np.uint64).reshape(2, 2)
    bits = (words[:, 0] << np.uint64(32) | words[:, 1]) & np.uint64(2**53 - 1)
    uniform = bits.astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2 * np.log1p(-uniform[1]))
    angle = 2 * np.pi * uniform[0]
    return [float(radius * np.cos(angle)), float(radius * np.sin(angle))]


def torch_cuda(seed: int, count: int, processors: int, threads_each: int) -> np.ndarray:
    """Return what `torch.randn(count)` draws first from a CUDA generator."""
    return TorchCudaGenerator(seed, processors, threads_each).normal(count)


class TorchCudaGenerator:
    """torch's numbers on a CUDA card: Philox4x32-10, four normals a call and thread."""

    def __init__(self, seed: int, processors: int, threads_each: int):
        self._seed = seed
        self._blocks = processors * (threads_each // BLOCK)
        self._calls = 0  # that each thread has made

    def normal(self, count: int) -> np.ndarray:
        threads = BLOCK * min(-(-count // BLOCK), self._blocks)
        calls = -(-count // (4 * threads))
        out = np.empty((calls, 4, threads), np.float32)
        for call in range(calls):
            x = _philox(self._calls + call, np.arange(threads, dtype=np.uint64), self._seed)
            for pair in range(2):
                normals = _box_muller(x[2 * pair], x[2 * pair + 1])
                out[call, 2 * pair], out[call, 2 * pair + 1] = normals
        self._calls += calls
        return out.reshape(-1)[:count]


def _philox(call: int, threads: np.ndarray, seed: int) -> list[np.ndarray]:
    """Run ten rounds on the counter (call, thread), keyed by the seed: four words a thread."""
    mask, low = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter = [np.full_like(threads, call & 0xFFFFFFFF), np.full_like(threads, call >> 32)]
    counter += [threads & mask, threads >> low]
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        a = np.uint64(0xD2511F53) * counter[0]
        b = np.uint64(0xCD9E8D57) * counter[2]
        counter = [
            (b >> low) ^ counter[1] ^ np.uint64(key[0]),
            b & mask,
            (a >> low) ^ counter[3] ^ np.uint64(key[1]),
            a & mask,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def _box_muller(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit, turn = np.float32(2**-32), np.float32(2**-32 * 2 * np.pi)
    u = x.astype(np.float32) * unit + unit / np.float32(2)
    v = y.astype(np.float32) * turn + turn / np.float32(2)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    return radius * np.sin(v), radius * np.cos(v)
