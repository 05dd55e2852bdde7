"""GLoRA: an update of low rank, and one of the weight itself."""

from ..forms import Form, Glora
from ..group import Group, Shapes, Values

ROLES = ("a1", "a2", "b1", "b2")


def shapes(group: Group) -> Shapes:
    """Return the shapes of the layout that `a1` shows: (in, rank), in older files (rank, in)."""
    (rows, columns), rank = group.shape, _rank(group)
    if _is_old(group):
        return {
            "a1": (rank, columns),
            "a2": (columns, rank),
            "b1": (rank, columns),
            "b2": (rows, rank),
        }
    return {"a1": (columns, rank), "a2": (rank, columns), "b1": (rows, rank), "b2": (rank, columns)}


def form(group: Group, values: Values) -> Form:
    a, b = (("a2", "a1"), ("b2", "b1")) if _is_old(group) else (("a1", "a2"), ("b1", "b2"))
    scale = group.scale(_rank(group), values.alpha)
    return Glora(values[a[0]], values[a[1]], values[b[0]], values[b[1]], scale)


def _is_old(group: Group) -> bool:
    return group.dimension("a1", 0) != group.shape[1]


def _rank(group: Group) -> int:
    return group.dimension("a1", 0 if _is_old(group) else 1)
