"""LoKr: the Kronecker product of two matrices, each whole or of low rank."""

from ..forms import Factor, Form, Kronecker
from ..group import Group, Shapes, Values

ROLES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")


def shapes(group: Group) -> Shapes:
    """Return the shapes: those of the first matrix decide those of the second."""
    (rows, columns), expected = group.shape, dict[str, tuple[int, ...]]()
    down, across = _size(group, "lokr_w1")
    if rows % down or columns % across:
        raise group.error(
            f"is {rows} x {columns}, which must be a multiple of its 'lokr_w1', {down} x {across}; "
            "the file is for another model"
        )
    for name, size in (("lokr_w1", (down, across)), ("lokr_w2", (rows // down, columns // across))):
        if name in group.parts:
            expected[name] = size
        else:
            rank = group.dimension(f"{name}_b", 0)
            expected |= {f"{name}_a": (size[0], rank), f"{name}_b": (rank, size[1])}
    return expected


def form(group: Group, values: Values) -> Form:
    w1, w2 = _factor(values, "lokr_w1"), _factor(values, "lokr_w2")
    return Kronecker(w1, w2, group.scale(_rank(group), values.alpha) if uses_alpha(group) else 1.0)


def uses_alpha(group: Group) -> bool:
    """Return whether a scale is in effect: of two whole matrices, an alpha means nothing.

    Some programs store one of 1e10 or infinity there. PEFT alone has a scale in its config.
    """
    is_whole = "lokr_w1" in group.parts and "lokr_w2" in group.parts
    return not is_whole or (group.peft is not None and group.peft.kind == "LOKR")


def _rank(group: Group) -> int:
    names = [name for name in ("lokr_w2_b", "lokr_w1_b") if name in group.parts]
    return group.dimension(names[0], 0) if names else 1  # PEFT's config has it


def _size(group: Group, name: str) -> tuple[int, int]:
    both = [role for role in (name, f"{name}_a") if role in group.parts]
    if len(both) > 1:
        raise group.error(f"must have {name!r} or '{name}_a' and '{name}_b', not both")
    if both == [name]:
        return group.dimension(name, 0), group.dimension(name, 1)
    return group.dimension(f"{name}_a", 0), group.dimension(f"{name}_b", 1)


def _factor(values: Values, name: str) -> Factor:
    whole = values.get(name)
    return whole if whole is not None else (values[f"{name}_a"], values[f"{name}_b"])
