"""The numbers of a LoRA's file, made into changes of modules."""

from collections.abc import Iterator, Mapping, Sequence

import mlx.core as mx
import numpy as np

from ..weights.formats.eight_bits import FORMATS
from ..weights.formats.fp8 import read_scaled
from ..weights.safetensors import Entry
from .fit import OF_NORMS, is_by_columns
from .forms import Change, Form, LowRank, Magnitude, VectorChange
from .group import Group, Values
from .readers import Reader
from .readers.low_rank import trimmed
from .targets import Target

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
NUMPY |= {"I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "I8": "i1"}
INFINITIES = {
    mx.float32: (mx.uint32, 0x7F800000),
    mx.float16: (mx.uint16, 0x7C00),
    mx.bfloat16: (mx.uint16, 0x7F80),
}
"""The bits of infinity; those of NaN, without the sign, are a larger number."""
WITHOUT_NUMBERS = ("alpha", "scaled_oft")
"""Roles that are no arrays: a number, and a mark."""

Judged = tuple[Group, Reader | None]


def read(groups: Sequence[Judged]) -> list[Values]:
    """Read all tensors side by side; an infinity or NaN that has an effect is refused."""
    parts = [
        {role: entry for role, entry in group.parts.items() if role not in WITHOUT_NUMBERS}
        for group, _ in groups
    ]
    arrays = _arrays([entry for entries in parts for entry in entries.values()])
    _check_finite(groups, arrays)
    return [
        Values({role: arrays[entry] for role, entry in entries.items()}, _alpha(group, reader))
        for (group, reader), entries in zip(groups, parts, strict=True)
    ]


def _arrays(entries: Sequence[Entry]) -> dict[Entry, mx.array]:
    """Read tensors of one file. 8-bit floats become bfloat16, which holds all of their numbers."""
    plain = [entry for entry in entries if entry.dtype not in FORMATS]
    stored = plain[0].file.read(plain) if plain else {}
    return {
        entry: stored[entry.name] if entry.name in stored else _widened(entry).astype(mx.bfloat16)
        for entry in entries
    }


def _widened(entry: Entry) -> mx.array:
    """Read a tensor of 8-bit floats, as float32."""
    return read_scaled({entry.name: entry})[entry.name].read()


def _check_finite(groups: Sequence[Judged], arrays: Mapping[Entry, mx.array]) -> None:
    are_finite = np.array(mx.stack([_is_finite(array) for array in arrays.values()]))
    if are_finite.all():
        return
    entry = [*arrays][int(np.argmin(are_finite))]
    group, role = next((g, r) for g, _ in groups for r, e in g.parts.items() if e == entry)
    raise group.error(
        f"has numbers in {group.tail(role)} that are infinite or NaN; "
        "the training that wrote it has failed"
    )


def _is_finite(array: mx.array) -> mx.array:
    """Return whether all numbers are finite: by their bits, in a fifth of the time."""
    kind, infinity = INFINITIES[array.dtype]
    unsigned = mx.array((1 << 8 * kind.size - 1) - 1, kind)
    return (array.view(kind) & unsigned).max() < infinity


def build(
    group: Group, reader: Reader | None, values: Values
) -> Iterator[tuple[Target, Change | VectorChange]]:
    """Yield the change of each target of a group."""
    if not group.is_matrix:
        role = next(role for role in OF_NORMS if role in values.arrays)
        yield group.named.targets[0], VectorChange(values[role], role == "set_weight")
        return
    form = None if reader is None else reader.form(group, values)
    bias = _bias(values, form)
    magnitude = next((values[r] for r in ("magnitude", "dora_scale") if r in values.arrays), None)
    if form is not None and magnitude is not None:
        form = Magnitude(form, magnitude.reshape(-1), "columns" if is_by_columns(group) else "rows")
    if len(group.named.targets) == 1:
        yield group.named.targets[0], Change(form, bias)
        return
    start = 0
    for target in group.named.targets:
        stop = start + target.shape[0]
        part = None if form is None else form.rows(start, stop)
        yield target, Change(part and trimmed(part), bias if bias is None else bias[start:stop])
        start = stop


def _bias(values: Values, form: Form | None) -> mx.array | None:
    """Return what is added to a layer's bias."""
    added = []
    if (up_bias := values.get("up_bias")) is not None and isinstance(form, LowRank):
        added.append(form.scale * up_bias.astype(mx.float32))
    if (diff := values.get("diff_b")) is not None:
        added.append(diff.astype(mx.float32))
    return sum(added[1:], added[0]) if added else None


def _alpha(group: Group, reader: Reader | None) -> float | None:
    """Return a group's alpha, or None where it has none or none that has an effect."""
    entry = group.parts.get("alpha")
    if entry is None or reader is None or not reader.uses_alpha(group):
        return None
    alpha = _number(entry)
    if not abs(alpha) < 1e9:
        raise group.error(f"has an alpha of {alpha:g}, which must be a finite number below 1e9")
    return alpha


def _number(entry: Entry) -> float:
    """Read a tensor of one number, of any type."""
    if entry.dtype in NUMPY:
        raw = entry.file.bytes(entry.start, entry.stop - entry.start)
        return float(raw.view(NUMPY[entry.dtype])[0])
    array = _widened(entry) if entry.dtype in FORMATS else entry.rows(0, 1)
    return float(np.array(array.astype(mx.float32)).reshape(()))
