"""Each kind of adapter as random tensors, and its merged weight in float64 by an index formula.

A form takes `put(tail, values)`, which stores a tensor and returns the numbers that the file then
holds; it returns the function from a weight W to the merged W'. The effect of each is about `size`
times as large as W, whose rows have norms near 1 in a random checkpoint.
"""

from collections.abc import Callable

import numpy as np

Put = Callable[..., np.ndarray]
Merge = Callable[[np.ndarray], np.ndarray]
Random = np.random.Generator
AB = ("lora_A.weight", "lora_B.weight")
DOWN_UP = ("lora_down.weight", "lora_up.weight")


def _plus(delta: np.ndarray) -> Merge:
    return lambda w: w + delta


def low_rank(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    rank: int,
    *,
    tails: tuple[str, str] = AB,
    alpha: float | None = None,
    scale: float | None = None,
    size: float = 1.0,
) -> Merge:
    """LoRA. `alpha` is stored; `scale` is one that the metadata tell."""
    out, width = shape
    factor = alpha / rank if alpha is not None else 1.0 if scale is None else scale
    down = put(tails[0], rng.normal(0, width**-0.5, (rank, width)))
    up = put(tails[1], rng.normal(0, size / factor * rank**-0.5, (out, rank)))
    if alpha is not None:
        factor = float(put("alpha", alpha)) / rank
    return _plus(factor * np.einsum("or,ri->oi", up, down))


def block_diagonal(
    put: Put, rng: Random, shape: tuple[int, int], rank: int, alpha: float, size: float = 1.0
) -> Merge:
    """LoRAs of query, key and value as one of three times the rank, zero off the diagonal."""
    out, width = shape[0] // 3, shape[1]
    down = put(DOWN_UP[0], rng.normal(0, width**-0.5, (3 * rank, width)))
    dense = np.zeros((3 * out, 3 * rank))
    for part in range(3):
        rows, columns = slice(part * out, (part + 1) * out), slice(part * rank, (part + 1) * rank)
        dense[rows, columns] = rng.normal(0, size * rank / alpha * rank**-0.5, (out, rank))
    up = put(DOWN_UP[1], dense)
    factor = float(put("alpha", 3 * alpha)) / (3 * rank)
    return _plus(factor * np.einsum("or,ri->oi", up, down))


def hadamard(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    rank: int,
    alpha: float | None = None,
    size: float = 1.0,
) -> Merge:
    """LoHa: the products of two pairs, number by number."""
    out, width = shape
    factor = 1.0 if alpha is None else alpha / rank
    w1_a = put("hada_w1_a", rng.normal(0, 1, (out, rank)))
    w1_b = put("hada_w1_b", rng.normal(0, rank**-0.5, (rank, width)))
    w2_a = put("hada_w2_a", rng.normal(0, size / factor * width**-0.5, (out, rank)))
    w2_b = put("hada_w2_b", rng.normal(0, rank**-0.5, (rank, width)))
    if alpha is not None:
        factor = float(put("alpha", alpha)) / rank
    return _plus(factor * np.einsum("or,ri,os,si->oi", w1_a, w1_b, w2_a, w2_b, optimize=True))


def kronecker(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    small: tuple[int, int],
    *,
    rank1: int | None = None,
    rank2: int | None = None,
    alpha: float | None = None,
    size: float = 1.0,
) -> Merge:
    """LoKr: w1 is `small`, a full matrix without a rank."""
    large = shape[0] // small[0], shape[1] // small[1]
    rank = rank2 or rank1
    factor = 1.0 if alpha is None or rank is None else alpha / rank

    def matrix(name: str, of: tuple[int, int], rank: int | None, deviation: float) -> np.ndarray:
        if rank is None:
            return put(name, rng.normal(0, deviation, of))
        a = put(f"{name}_a", rng.normal(0, deviation, (of[0], rank)))
        b = put(f"{name}_b", rng.normal(0, rank**-0.5, (rank, of[1])))
        return np.einsum("or,ri->oi", a, b)

    w1 = matrix("lokr_w1", small, rank1, 1.0)
    w2 = matrix("lokr_w2", large, rank2, size / factor * shape[1] ** -0.5)
    if alpha is not None:
        stored = float(put("alpha", alpha))
        factor = 1.0 if rank is None else stored / rank
    i, k = np.divmod(np.arange(shape[0]), large[0])
    j, m = np.divmod(np.arange(shape[1]), large[1])
    return _plus(factor * w1[i[:, None], j] * w2[k[:, None], m])


def decomposed(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    inner: Merge,
    tail: str = "dora_scale",
    axis: str = "rows",
    flat: bool = False,
) -> Merge:
    """DoRA: a magnitude for each row or column of what another form makes."""
    count, typical = (shape[0], 1.0) if axis == "rows" else (shape[1], (shape[0] / shape[1]) ** 0.5)
    given = (count,) if flat else (count, 1) if axis == "rows" else (1, count)
    magnitude = put(tail, typical * rng.uniform(0.5, 2.0, given)).ravel()

    def merge(w: np.ndarray) -> np.ndarray:
        v = inner(w)
        if axis == "rows":
            return v * (magnitude / np.sqrt((v * v).sum(1)))[:, None]
        return v * (magnitude / np.sqrt((v * v).sum(0)))

    return merge


def glora(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    rank: int,
    alpha: float | None = None,
    old: bool = False,
    size: float = 1.0,
) -> Merge:
    """GLoRA; `old` files have each pair the other way round."""
    out, width = shape
    factor = 1.0 if alpha is None else alpha / rank
    names = ("a2", "a1", "b2", "b1") if old else ("a1", "a2", "b1", "b2")
    size = size / factor * 0.5**0.5
    a_up = put(f"{names[0]}.weight", rng.normal(0, size * rank**-0.5, (width, rank)))
    a_down = put(f"{names[1]}.weight", rng.normal(0, width**-0.5, (rank, width)))
    b_up = put(f"{names[2]}.weight", rng.normal(0, size * rank**-0.5, (out, rank)))
    b_down = put(f"{names[3]}.weight", rng.normal(0, width**-0.5, (rank, width)))
    if alpha is not None:
        factor = float(put("alpha", alpha)) / rank
    constant = np.einsum("or,ri->oi", b_up, b_down)
    return lambda w: w + factor * (constant + (w @ a_up) @ a_down)


def _cayley(blocks: np.ndarray, limit: float) -> np.ndarray:
    skew = blocks - np.swapaxes(blocks, -1, -2)
    norm = np.sqrt((skew * skew).sum())
    if 0 < limit < norm:
        skew = skew * (limit / norm)
    one = np.eye(blocks.shape[-1])
    return (one + skew) @ np.linalg.inv(one - skew)


def _rescale(put: Put, rng: Random, out: int, rescale: bool) -> np.ndarray:
    return put("rescale", rng.uniform(0.5, 2.0, (out, 1))) if rescale else np.ones((out, 1))


def output_rotation(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    block: int,
    constraint: float = 0.0,
    rescale: bool = False,
) -> Merge:
    """LyCORIS' OFT. With a constraint, rotations are held to a half or so of theirs."""
    out = shape[0]
    blocks = put("oft_blocks", rng.normal(0, 0.5 * block**-0.5, (out // block, block, block)))
    limit = float(put("alpha", constraint)) * out
    factors = _rescale(put, rng, out, rescale)
    rotations = _cayley(blocks, limit)

    def merge(w: np.ndarray) -> np.ndarray:
        turned = np.empty_like(w)
        for n, rotation in enumerate(rotations):
            for m in range(block):
                turned[n * block + m] = rotation[:, m] @ w[n * block : (n + 1) * block]
        return factors * turned

    return merge


def butterfly(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    most: int,
    constraint: float = 0.0,
    rescale: bool = False,
) -> Merge:
    """LyCORIS' BOFT: stage j mixes rows that lie 2^j block / 2 apart.

    The rows are a power of two times the block, which is even, and at most `most`.
    """
    out = shape[0]
    blocks = [b for b in range(2, most + 1, 2) if out % b == 0]
    block = max(b for b in blocks if (out // b).bit_count() == 1)
    count = out // block
    stages = count.bit_length()
    values = rng.normal(0, 0.3 * block**-0.5, (stages, count, block, block))
    stored = put("oft_blocks", values)
    limit = float(put("alpha", constraint)) * out
    factors = _rescale(put, rng, out, rescale)
    rotations = _cayley(stored, limit)

    def merge(w: np.ndarray) -> np.ndarray:
        rows = w.copy()
        for stage in range(stages):
            half = 2**stage * block // 2
            order = [
                start + side * half + row
                for start in range(0, out, 2 * half)
                for row in range(half)
                for side in range(2)
            ]
            mixed = rows[order].reshape(count, block, -1)
            rows = rows.copy()
            rows[order] = np.einsum("nij,njc->nic", rotations[stage], mixed).reshape(out, -1)
        return factors * rows

    return merge


def input_rotation(
    put: Put,
    rng: Random,
    shape: tuple[int, int],
    block: int,
    shared: bool = False,
    scaled: str | None = None,
) -> Merge:
    """OneTrainer's OFT; `scaled` is the type of the mark that says so."""
    count = 1 if shared else shape[1] // block
    factor = 2 * (block - 1) ** 0.5 if scaled else 1.0
    deviation = 0.3 * block**-0.5 * factor
    upper = put("oft_R.weight", rng.normal(0, deviation, (count, block * (block - 1) // 2)))
    if scaled:
        put("oft_R.scaled_oft", 1.0, kind=scaled)
    rotations = []
    for row in upper / factor:
        q = np.zeros((block, block))
        numbers = iter(row)
        for i in range(block):
            for j in range(i + 1, block):
                q[i, j] = next(numbers)
                q[j, i] = -q[i, j]
        rotations.append(np.eye(block) + 2 * q + 2 * q @ q + 2 * q @ q @ q + q @ q @ q @ q)

    def merge(w: np.ndarray) -> np.ndarray:
        turned = np.empty_like(w)
        for n in range(shape[1] // block):
            columns = slice(n * block, (n + 1) * block)
            turned[:, columns] = w[:, columns] @ rotations[0 if shared else n].T
        return turned

    return merge


def added(put: Put, rng: Random, shape: tuple[int, ...], tail: str, size: float = 1.0) -> Merge:
    """A dense difference, of a weight, a bias or a norm."""
    deviation = size * (shape[1] ** -0.5 if len(shape) > 1 else 0.5)
    return _plus(put(tail, rng.normal(0, deviation, shape)))


def replaced(put: Put, rng: Random, shape: tuple[int, ...], tail: str) -> Merge:
    weight = put(tail, rng.normal(0, shape[-1] ** -0.5, shape))
    return lambda w: weight
