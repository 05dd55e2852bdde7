"""Rounding that knows a layer's inputs (GPTQ): each column takes over the errors of those before.

The error of a layer's output is tr(E H E^T), for the error E of its weights and the sum H = X^T X
over its inputs. H = L L^T gives what each column should be once others are rounded. Columns with
the largest inputs go first; scales and biases are those of the plain search, by the columns' own
groups. No inverse is needed: with a unit triangular factor, feeding errors back is the same as the
published update of all remaining weights.
"""

from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from ..models.layers.rotation import rotate
from ..weights.packing import Packing, words
from .affine import search

DAMPING = 0.01  # of the mean of H's diagonal, added to it
PIECE = 1024  # rows or columns of H that are worked on at once
LEAF = 16  # columns that are rounded one by one; larger pieces exchange errors by one product


@dataclass(frozen=True)
class Factor:
    """The unit lower triangular factor of H, its columns ordered by rising inputs."""

    order: np.ndarray  # (width,) the layer's column at each place; the last is rounded first
    lower: np.ndarray  # (width, width) float32, each column divided by its diagonal
    weights: np.ndarray  # (width,) the squares of the diagonal: the weight of each error

    @classmethod
    def of(cls, hessian: np.ndarray) -> "Factor":
        """Factorize H (width, width) float32. Where it is singular, the damping grows."""
        diagonal = np.diagonal(hessian)
        mean = float(diagonal.mean()) or 1.0
        order = np.argsort(diagonal, kind="stable")
        damping = DAMPING
        while (panels := _cholesky(hessian, order, damping * mean)) is None:
            damping *= 10
        lower = np.zeros(hessian.shape, np.float32)
        pivots = np.empty(len(order), np.float32)
        for some in _pieces(len(order)):
            panel = panels.pop(0).astype(np.float32)
            pivots[some] = np.diagonal(panel)
            lower[some.start :, some] = panel / pivots[some]
        return cls(order, lower, pivots**2)


def _cholesky(hessian: np.ndarray, order: np.ndarray, added: float) -> list[np.ndarray] | None:
    """Return panels of the factor's columns, from the diagonal down; None where H is singular.

    NumPy's own would hold H in float64 three times, 2.5 GB for the widest; the panels are half of
    one.
    """
    panels: list[np.ndarray] = []
    diagonal = np.diagonal(hessian)[order] + np.float32(added)
    for some in _pieces(len(order)):
        start, columns = some.start, order[some]
        panel = hessian[np.ix_(order[start:], columns)].astype(np.float64)
        size = len(columns)
        panel[np.diag_indices(size)] = diagonal[some]
        for before, earlier in zip(_pieces(start), panels, strict=True):
            known = earlier[start - before.start :]
            panel -= known @ known[:size].T
        try:
            top = np.linalg.cholesky(panel[:size])
            panel[size:] = panel[size:] @ np.linalg.inv(top).T
        except np.linalg.LinAlgError:
            return None
        panel[:size] = top
        if not np.isfinite([panel.min(), panel.max()]).all():  # either is nan if any number is
            return None
        panels.append(panel)
    return panels


def rotated(hessian: np.ndarray, rotation: str) -> np.ndarray:
    """Return H of inputs that are rotated; H itself for no rotation."""
    if not rotation:
        return hessian
    turned = np.empty_like(hessian)
    for some in _pieces(len(hessian)):
        turned[some] = np.array(rotate(mx.array(hessian[some]), rotation))
    for some in _pieces(len(hessian)):
        turned[:, some] = np.array(rotate(mx.array(turned[:, some].T), rotation)).T
    return turned.T


def _pieces(width: int) -> list[slice]:
    """Return slices of a matrix, so that a copy of each takes little memory."""
    return [slice(start, start + PIECE) for start in range(0, width, PIECE)]


def calibrate(
    weight: mx.array, factor: Factor, packing: Packing, dtype: mx.Dtype
) -> tuple[list[mx.array], float]:
    """Return (rows, width) weights packed with scales of `dtype`, and tr(E H E^T), damped."""
    plain = replace(packing, rotation="")
    array = rotate(weight.astype(mx.float32), packing.rotation)
    _, scales, biases = search(array.astype(dtype), plain)
    columns = np.array(array, copy=False).T[factor.order]  # (width, rows)
    del array
    lines = [np.array(value.astype(mx.float32).T) for value in (scales, biases)]
    groups = factor.order // packing.group_size
    rounding = _Rounding(columns, factor, groups, lines, 2**packing.bits - 1)
    levels, error = rounding.levels, rounding.error
    del columns, rounding
    restored = np.empty_like(levels)
    restored[factor.order] = levels
    packed = words(mx.array(restored.T).astype(mx.uint32), packing.bits)
    arrays = [packed, scales, biases]
    mx.eval(arrays)
    return arrays, error


class _Rounding:
    """The levels of a matrix, its last column first, and the error.

    Not a function that calls itself in a function: that is a cycle, which keeps all arrays until
    Python's collector runs.
    """

    def __init__(
        self,
        columns: np.ndarray,  # (width, rows)
        factor: Factor,
        groups: np.ndarray,
        lines: list[np.ndarray],
        top: int,
    ):
        self._columns, self._factor, self._groups, self._top = columns, factor, groups, top
        self._scales, self._biases = lines  # (groups, rows)
        self._aims = columns.copy()  # what each column should be; once it is rounded, its error
        self.levels = np.empty(columns.shape, np.uint8)
        self.error = 0.0
        self._several(0, len(columns))

    def _one(self, k: int) -> None:
        scale, bias = self._scales[self._groups[k]], self._biases[self._groups[k]]
        nearest = np.clip(np.rint((self._aims[k] - bias) / scale), 0, self._top)
        self.levels[k] = nearest
        value = nearest * scale + bias
        squares = float(np.square(self._aims[k] - value).sum())
        self.error += float(self._factor.weights[k]) * squares
        self._aims[k] = self._columns[k] - value

    def _several(self, start: int, stop: int) -> None:
        aims, lower = self._aims, self._factor.lower
        if stop - start <= LEAF:
            for k in range(stop - 1, start - 1, -1):
                if k + 1 < stop:
                    aims[k] += lower[k + 1 : stop, k] @ aims[k + 1 : stop]
                self._one(k)
            return
        middle = (start + stop) // 2
        self._several(middle, stop)
        aims[start:middle] += lower[middle:stop, start:middle].T @ aims[middle:stop]
        self._several(start, middle)
