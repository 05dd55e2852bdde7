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
PIECE = 512  # rows or columns of H that are copied at once
LEAF = 16  # columns that are rounded one by one; larger pieces exchange errors by one product


@dataclass(frozen=True)
class Factor:
    """The unit lower triangular factor of H, its columns ordered by rising inputs."""

    order: np.ndarray  # (width,) the layer's column at each place; the last is rounded first
    lower: np.ndarray  # (width, width) float32, each column divided by its diagonal
    weights: np.ndarray  # (width,) the squares of the diagonal: the weight of each error

    @classmethod
    def of(cls, hessian: np.ndarray) -> "Factor":
        """Factorize H (width, width) float32. Where it is singular, the damping grows.

        H is sorted in its own memory, and back: the widest takes 0.4 GB, and NumPy two more.
        """
        diagonal = np.diagonal(hessian).copy()
        mean = float(diagonal.mean()) or 1.0
        order = np.argsort(diagonal, kind="stable")
        _sort(hessian, order)
        damping = DAMPING
        while True:
            hessian[np.diag_indices(len(order))] = diagonal[order] + damping * mean
            try:
                lower = np.linalg.cholesky(hessian)
            except np.linalg.LinAlgError:
                lower = np.full((1, 1), np.nan, np.float32)
            if np.isfinite([lower.min(), lower.max()]).all():  # either is nan if any number is
                break
            del lower
            damping *= 10
        hessian[np.diag_indices(len(order))] = diagonal[order]
        _sort(hessian, np.argsort(order))
        pivots = np.diagonal(lower).copy()
        lower /= pivots
        return cls(order, lower, pivots**2)


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


def _sort(matrix: np.ndarray, order: np.ndarray) -> None:
    """Put rows and columns in another order, in the matrix's memory."""
    for some in _pieces(len(order)):
        matrix[some] = matrix[some][:, order]
    for some in _pieces(len(order)):
        matrix[:, some] = matrix[:, some][order]


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
    levels, error = _round(columns, factor, groups, lines, 2**packing.bits - 1)
    del columns
    restored = np.empty_like(levels)
    restored[factor.order] = levels
    packed = words(mx.array(restored.T).astype(mx.uint32), packing.bits)
    arrays = [packed, scales, biases]
    mx.eval(arrays)
    return arrays, error


def _round(
    columns: np.ndarray,
    factor: Factor,
    groups: np.ndarray,
    lines: list[np.ndarray],
    top: int,
) -> tuple[np.ndarray, float]:
    """Return the level of each weight (width, rows), the last column first, and the error."""
    scales, biases = lines  # (groups, rows)
    aims = columns.copy()  # what each column should be; once it is rounded, its error
    levels = np.empty(columns.shape, np.uint8)
    error = 0.0

    def one(k: int) -> None:
        nonlocal error
        scale, bias = scales[groups[k]], biases[groups[k]]
        nearest = np.clip(np.rint((aims[k] - bias) / scale), 0, top)
        levels[k] = nearest
        value = nearest * scale + bias
        error += float(factor.weights[k]) * float(np.square(aims[k] - value).sum())
        aims[k] = columns[k] - value

    def several(start: int, stop: int) -> None:
        if stop - start <= LEAF:
            for k in range(stop - 1, start - 1, -1):
                if k + 1 < stop:
                    aims[k] += factor.lower[k + 1 : stop, k] @ aims[k + 1 : stop]
                one(k)
            return
        middle = (start + stop) // 2
        several(middle, stop)
        aims[start:middle] += factor.lower[middle:stop, start:middle].T @ aims[middle:stop]
        several(start, middle)

    several(0, len(columns))
    return levels, error
