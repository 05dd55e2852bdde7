"""LoRA and LoHa: matrices of low rank, alone or multiplied element by element."""

from dataclasses import replace

import mlx.core as mx
import numpy as np

from ..forms import Form, Hadamard, LowRank, Magnitude
from ..group import Group, Shapes, Values

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def lora_shapes(group: Group) -> Shapes:
    rank, (rows, columns) = group.dimension("down", 0), group.shape
    return {"down": (rank, columns), "up": (rows, rank)}


def lora(group: Group, values: Values) -> Form:
    scale = group.scale(group.dimension("down", 0), values.alpha)
    return LowRank(values["down"], values["up"], scale)


def loha_shapes(group: Group) -> Shapes:
    (rows, columns), rank = group.shape, group.dimension("hada_w1_b", 0)
    other = group.dimension("hada_w2_b", 0)
    pairs = ((rows, rank), (rank, columns), (rows, other), (other, columns))
    return dict(zip(LOHA, pairs, strict=True))


def loha(group: Group, values: Values) -> Form:
    scale = group.scale(group.dimension("hada_w1_b", 0), values.alpha)
    w1_a, w1_b, w2_a, w2_b = (values[role] for role in LOHA)
    return Hadamard(w1_a, w1_b, w2_a, w2_b, scale)


def trimmed(form: Form) -> Form:
    """Return a form without the ranks that its rows do not use.

    Some programs fuse three matrices by stacking all their ranks, with zeros where one does not
    use another's.
    """
    if isinstance(form, LowRank):
        down, up = _used(form.down, form.up)
        return replace(form, down=down, up=up)
    if isinstance(form, Magnitude):
        return replace(form, inner=trimmed(form.inner))
    if isinstance(form, Hadamard):
        w1_b, w1_a = _used(form.w1_b, form.w1_a)
        w2_b, w2_a = _used(form.w2_b, form.w2_a)
        return replace(form, w1_a=w1_a, w1_b=w1_b, w2_a=w2_a, w2_b=w2_b)
    return form


def _used(down: mx.array, up: mx.array) -> tuple[mx.array, mx.array]:
    used = np.flatnonzero(np.array(mx.any(up != 0, axis=0)))
    if len(used) == up.shape[1]:
        return down, up
    chosen = mx.array(used if len(used) else np.zeros(1, np.int64))  # a rank is at least 1
    return down[chosen], up[:, chosen]
