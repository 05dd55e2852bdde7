"""Forms of changes against their formulas in float64, written out by indices and without MLX."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.lora import forms as f
from mlx_zimage.models.layers.linear import Linear
from tests.measures import relative_error

OUT, IN, R = 96, 128, 4
Arrays = dict[str, np.ndarray]


def _random(*shape: int, seed: int, scale: float = 0.1) -> mx.array:
    return scale * mx.random.normal(shape, key=mx.random.key(seed))


def _host(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).astype(np.float64)


DOWN, UP = _random(R, IN, seed=1), _random(OUT, R, seed=2)
FOUR = [_random(*shape, seed=10 + n, scale=0.3) for n, shape in enumerate([(OUT, R), (R, IN)] * 2)]
W1, W2 = _random(6, 8, seed=20, scale=0.4), _random(16, 16, seed=21, scale=0.4)
W2_A, W2_B = _random(16, 3, seed=22, scale=0.4), _random(3, 16, seed=23, scale=0.4)
A1, A2 = _random(IN, R, seed=30), _random(R, IN, seed=31)
BLOCKS = _random(12, 8, 8, seed=40, scale=0.05)
STAGES = _random(3, 12, 8, 8, seed=41, scale=0.05)
RESCALE = 1 + _random(OUT, 1, seed=42)
UPPER = _random(8, 120, seed=43, scale=0.02)
DIFF = _random(OUT, IN, seed=50, scale=0.05)
BY_ROW, BY_COLUMN = 4 + _random(OUT, seed=60), 4 + _random(IN, seed=61)


def _lora(w: np.ndarray) -> np.ndarray:
    return w + 0.7 * np.einsum("or,ri->oi", _host(UP), _host(DOWN))


def _loha(w: np.ndarray) -> np.ndarray:
    a, b, c, d = map(_host, FOUR)
    return w + 0.7 * np.einsum("or,ri,os,si->oi", a, b, c, d)


def _lokr(w: np.ndarray, w2: np.ndarray) -> np.ndarray:
    out = w.copy()
    for i in range(6):
        for j in range(8):
            out[i * 16 : i * 16 + 16, j * 16 : j * 16 + 16] += 0.7 * _host(W1)[i, j] * w2
    return out


def _glora(w: np.ndarray) -> np.ndarray:
    b1, b2, _, _ = map(_host, FOUR)
    return w + 0.7 * (b1 @ b2 + w @ _host(A1) @ _host(A2))


def _rotation(block: np.ndarray, factor: float = 1.0) -> np.ndarray:
    q = factor * (block - block.T)
    one = np.eye(len(q))
    return (one + q) @ np.linalg.inv(one - q)


def _oft(w: np.ndarray, factor: float = 1.0, rescaled: bool = False) -> np.ndarray:
    pieces = [_rotation(b, factor).T @ w[8 * i : 8 * i + 8] for i, b in enumerate(_host(BLOCKS))]
    out = np.concatenate(pieces)
    return out * _host(RESCALE) if rescaled else out


def _constrained(w: np.ndarray) -> np.ndarray:
    blocks = _host(BLOCKS)
    norm = np.linalg.norm(blocks - blocks.swapaxes(1, 2))
    assert norm > 0.01 * OUT
    return _oft(w, 0.01 * OUT / norm)


def _boft(w: np.ndarray) -> np.ndarray:
    for stage, blocks in enumerate(_host(STAGES)):
        apart = 2**stage * 4
        # Row (a, g, k) of the weight is number (a, k, g) of the rows that blocks are cut from.
        order = np.arange(OUT).reshape(-1, 2, apart).swapaxes(1, 2).reshape(-1)
        turned = w.copy()
        for i, block in enumerate(blocks):
            rows = order[8 * i : 8 * i + 8]
            turned[rows] = _rotation(block) @ w[rows]
        w = turned
    return w * _host(RESCALE)


def _input_oft(w: np.ndarray, divisor: float = 1.0) -> np.ndarray:
    out = w.copy()
    for i, numbers in enumerate(_host(UPPER) / divisor):
        q = np.zeros((16, 16))
        n = 0
        for row in range(16):
            for column in range(row + 1, 16):
                q[row, column], q[column, row] = numbers[n], -numbers[n]
                n += 1
        r = np.eye(16) + 2 * q + 2 * q @ q + 2 * q @ q @ q + q @ q @ q @ q
        out[:, 16 * i : 16 * i + 16] = w[:, 16 * i : 16 * i + 16] @ r.T
    return out


def _dora(v: np.ndarray, axis: int) -> np.ndarray:
    magnitude = _host(BY_ROW)[:, None] if axis == 1 else _host(BY_COLUMN)
    return magnitude * v / np.linalg.norm(v, axis=axis, keepdims=True)


LORA = f.LowRank(DOWN, UP, 0.7)
CASES: dict[str, tuple[f.Form, Callable[[np.ndarray], np.ndarray]]] = {
    "lora": (LORA, _lora),
    "loha": (f.Hadamard(*FOUR, 0.7), _loha),
    "lokr": (f.Kronecker(W1, W2, 0.7), lambda w: _lokr(w, _host(W2))),
    "lokr decomposed": (
        f.Kronecker(W1, (W2_A, W2_B), 0.7),
        lambda w: _lokr(w, _host(W2_A) @ _host(W2_B)),
    ),
    "glora": (f.Glora(A1, A2, *FOUR[:2], 0.7), _glora),
    "oft": (f.OutputRotation(BLOCKS), _oft),
    "oft rescaled": (f.OutputRotation(BLOCKS, 0, RESCALE), lambda w: _oft(w, rescaled=True)),
    "oft constrained": (f.OutputRotation(BLOCKS, 0.01), _constrained),
    "boft": (f.Butterfly(STAGES, 0, RESCALE), _boft),
    "input oft": (f.InputRotation(UPPER, 16), _input_oft),
    "input oft scaled": (
        f.InputRotation(UPPER, 16, scaled=True),
        lambda w: _input_oft(w, 2 * 15**0.5),
    ),
    "diff": (f.Dense(DIFF), lambda w: w + _host(DIFF)),
    "set": (f.Replacement(DIFF), lambda w: _host(DIFF)),
    "dora rows": (f.Magnitude(LORA, BY_ROW), lambda w: _dora(_lora(w), 1)),
    "dora columns": (f.Magnitude(LORA, BY_COLUMN, "columns"), lambda w: _dora(_lora(w), 0)),
    "dora of lokr": (
        f.Magnitude(f.Kronecker(W1, W2, 0.7), BY_ROW),
        lambda w: _dora(_lokr(w, _host(W2)), 1),
    ),
    "dora of glora": (
        f.Magnitude(f.Glora(A1, A2, *FOUR[:2], 0.7), BY_COLUMN, "columns"),
        lambda w: _dora(_glora(w), 0),
    ),
    "dora of oft": (
        f.Magnitude(f.OutputRotation(BLOCKS), BY_ROW),
        lambda w: _dora(_oft(w), 1),
    ),
}


@pytest.fixture(scope="module")
def layer() -> Linear:
    layer = Linear(IN, OUT)
    layer.weight = _random(OUT, IN, seed=0, scale=0.3)
    return layer


X = _random(2, 7, IN, seed=70, scale=1.0)


def _effect(form: f.Form, layer: Any, x: mx.array, strength: float = 1.0) -> mx.array:
    """Return what a form adds, by the way that attaches it."""
    before, after = form.prepare(layer, x.dtype, strength)(x, lambda: layer.product(x))
    parts = [] if before is None else [layer.product(before)]
    parts += [] if after is None else [after]
    return sum(parts[1:], parts[0])


@pytest.mark.parametrize("name", CASES)
def test_attached_and_merged_agree_with_the_formula(name: str, layer: Linear) -> None:
    """The errors relative to the effect are at most 3.4e-7 attached and 1.3e-6 merged."""
    form, formula = CASES[name]
    weight = _host(layer.weight)
    change = formula(weight) - weight
    effect = _host(X) @ change.T
    merged = form.merged(layer.weight)
    assert merged.dtype == mx.float32
    assert relative_error(_host(merged) - weight, change) < 2e-6
    assert relative_error(form.added(X, layer.product(X), layer), effect) < 5e-7
    assert relative_error(_effect(form, layer, X, 0.3), 0.3 * effect) < 5e-7


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_the_full_change(name: str, layer: Linear) -> None:
    """A fused matrix is cut into rows; forms whose rows need each other say so."""
    form, _ = CASES[name]
    part = form.rows(20, 50)
    if part is None:
        assert isinstance(form, f.OutputRotation | f.Butterfly) or "dora" in name
        return
    assert relative_error(part.merged(layer.weight[20:50]), form.merged(layer.weight)[20:50]) < 1e-6
    below = Linear(IN, 30)
    below.weight = layer.weight[20:50]
    added = part.added(X, below.product(X), below)
    assert relative_error(added, _effect(form, layer, X)[..., 20:50]) < 1e-6
    again = part.rows(5, 9)
    assert again is not None
    assert (
        relative_error(again.merged(layer.weight[25:29]), form.merged(layer.weight)[25:29]) < 1e-6
    )


@pytest.mark.parametrize("packing", [(4, "affine", 64), (8, "affine", 64), (4, "nvfp4", 16)])
@pytest.mark.parametrize("name", CASES)
def test_quantized_layers_lose_nothing(
    name: str, packing: tuple[int, str, int], layer: Linear
) -> None:
    """On 16-bit activations, the effect is off by at most 4.7e-3 of itself, by its own rounding."""
    form, formula = CASES[name]
    bits, mode, group_size = packing
    base = Linear(IN, OUT, bias=False)
    base.weight = layer.weight.astype(mx.bfloat16)
    base = base.to_quantized(group_size=group_size, bits=bits, mode=mode)
    weight = _host(base.rows(0, OUT))
    x = X.astype(mx.bfloat16)
    effect = _host(x) @ (formula(weight) - weight).T
    assert relative_error(_effect(form, base, x), effect) < 6e-3


def test_bytes_and_ranks_are_those_of_the_arrays() -> None:
    lora = f.Magnitude(LORA, BY_ROW)
    assert lora.nbytes == 4 * (R * (IN + OUT) + OUT)
    assert f.Kronecker(W1, (W2_A, W2_B)).nbytes == 4 * (48 + 48 + 48)
    assert f.Change(LORA, BY_ROW).nbytes == lora.nbytes
    ranks = {name: form.rank for name, (form, _) in CASES.items()}
    assert ranks["lora"] == ranks["loha"] == ranks["dora rows"] == R
    assert ranks["lokr decomposed"] == 3
    assert ranks["lokr"] is None
    assert ranks["oft"] is None
