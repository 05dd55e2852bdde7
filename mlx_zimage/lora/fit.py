"""The tensors of one module, held against the module's shape."""

from ..errors import LoraError
from ..weights.formats.eight_bits import FORMATS
from ..weights.safetensors import FLOATS, Entry
from .group import Group, Shape
from .readers import Reader, reader_of

READABLE = (*FLOATS, *FORMATS)
ALPHAS = (*READABLE, "F64", "I16", "I32", "I64", "U8", "I8")
"""Types of an alpha: some programs store a whole number."""
MARKS = (*ALPHAS, "BOOL")
"""Types of a mark, of which only the presence counts: OneTrainer stores a truth value."""
OF_NORMS = ("diff", "w_norm", "set_weight")
MAGNITUDES = ("magnitude", "dora_scale")
WITH_MAGNITUDES = ("LoRA", "LoHa", "LoKr")


def fitting(group: Group) -> Reader | None:
    """Return the reader of a module's tensors, all of which fit it; None for a vector alone."""
    if not group.is_matrix:
        _check_norm(group)
        return None
    reader = reader_of(group)
    if reader is None and "diff_b" not in group.parts:
        raise group.error(f"has {group.tails} and nothing they go with; the file is incomplete")
    shapes = {} if reader is None else dict(reader.shapes(group))
    if missing := [role for role in shapes if role not in group.parts]:
        group.dimension(missing[0], 0)  # raises
    kind = "bias" if reader is None else reader.kind
    for role, entry in group.parts.items():
        allowed = [shapes[role]] if role in shapes else _beside(group, role, kind)
        if entry.shape not in allowed:
            raise _misshapen(group, role, allowed)
        _check_type(group, role, entry)
    _check_magnitudes(group, kind)
    _check_fused(group, reader)
    return reader


def _check_magnitudes(group: Group, kind: str) -> None:
    count = sum(role in group.parts for role in MAGNITUDES)
    if count > 1:
        raise group.error("must have one magnitude of DoRA, not two")
    if count == 0 and kind == "LoRA" and group.peft is not None and group.peft.has_magnitudes:
        raise group.error(
            "has no lora_magnitude_vector, and its config says 'use_dora'; the file is incomplete"
        )


def _beside(group: Group, role: str, kind: str) -> list[Shape]:
    """Return the shapes that a tensor beside those of a kind may have."""
    rows, columns = group.shape
    if role == "alpha":
        return [(), (1,)]
    if role == "diff_b" or (role == "up_bias" and kind == "LoRA"):
        return [(rows,)]
    if kind in WITH_MAGNITUDES and role == "magnitude":
        return [(rows,), (rows, 1)]
    if kind in WITH_MAGNITUDES and role == "dora_scale":
        return [(rows, 1), (1, columns), (rows,)]
    raise group.error(
        f"has {group.tail(role)}, which does not go with its {kind}; the file is broken"
    )


def is_by_columns(group: Group) -> bool:
    """Return whether a magnitude of DoRA is for each column, where it usually is for each row."""
    entry = group.parts.get("dora_scale")
    return entry is not None and entry.shape == (1, group.shape[1])


def _check_fused(group: Group, reader: Reader | None) -> None:
    """Refuse changes of a fused matrix that cannot be taken apart into those of its parts."""
    if len(group.named.targets) == 1:
        return
    if reader is not None and not reader.splits:
        raise group.error(
            f"is three matrices in one, which its {reader.kind} turns together; "
            "convert the file to the names to_q, to_k and to_v"
        )
    if is_by_columns(group):
        raise group.error(
            "is three matrices in one, and has a magnitude for the columns of all; "
            "convert the file to the names to_q, to_k and to_v"
        )


def _check_norm(group: Group) -> None:
    roles = [role for role in group.parts if role in OF_NORMS]
    if others := [role for role in group.parts if role not in (*OF_NORMS, "alpha")]:
        raise group.error(
            f"is a norm, which {group.tail(others[0])} cannot change; the file is broken"
        )
    if len(roles) != 1:
        raise group.error(f"is a norm, and must have one of {', '.join(OF_NORMS)}")
    entry = group.parts[roles[0]]
    if entry.shape != group.shape:
        raise _misshapen(group, roles[0], [group.shape])
    _check_type(group, roles[0], entry)


def _check_type(group: Group, role: str, entry: Entry) -> None:
    allowed = {"alpha": ALPHAS, "scaled_oft": MARKS}.get(role, READABLE)
    if entry.dtype not in allowed:
        raise group.error(
            f"has {group.tail(role)} of the type {entry.dtype}, which must be one of "
            f"{', '.join(READABLE)}; save the file in one of them"
        )


def _misshapen(group: Group, role: str, allowed: list[Shape]) -> LoraError:
    shapes = " or ".join(map(str, allowed))
    return group.error(
        f"has {group.tail(role)} of the shape {group.parts[role].shape}, which must be {shapes}; "
        "the file is for a model of another size (--model names it), or broken"
    )
