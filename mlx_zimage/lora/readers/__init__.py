"""Readers of the ways to store a change: each checks shapes, then makes a form of the numbers.

A `Reader` is a row: the roles that show it, the shapes its tensors must have, and the form that
they make. DoRA's magnitudes and biases go with any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..forms import Form
from ..group import Group, Shapes, Values
from . import glora, kronecker, low_rank, rotations, whole


@dataclass(frozen=True)
class Reader:
    """One way to store a change of a matrix."""

    kind: str  # for people
    signs: tuple[str, ...]  # roles, any of which shows it
    shapes: Callable[[Group], Shapes]  # that its tensors must have
    form: Callable[[Group, Values], Form]
    uses_alpha: Callable[[Group], bool] = lambda group: True
    splits: bool = True  # whether its form can be taken apart by rows


READERS = (
    Reader("LoRA", ("down", "up"), low_rank.lora_shapes, low_rank.lora),
    Reader("LoHa", low_rank.LOHA, low_rank.loha_shapes, low_rank.loha),
    Reader("LoKr", kronecker.ROLES, kronecker.shapes, kronecker.form, kronecker.uses_alpha),
    Reader("GLoRA", glora.ROLES, glora.shapes, glora.form),
    Reader(
        "OFT",
        ("oft_blocks", "rescale"),
        rotations.output_shapes,
        rotations.output,
        splits=False,
    ),
    Reader(
        "OFT",
        ("oft_R", "scaled_oft"),
        rotations.input_shapes,
        rotations.input,
        lambda group: False,
    ),
    Reader("full", ("diff",), whole.diff_shapes, whole.diff, lambda group: False),
    Reader(
        "replacement", ("set_weight",), whole.set_shapes, whole.replacement, lambda group: False
    ),
)
"""One row for each way to store a change of a matrix."""


def reader_of(group: Group) -> Reader | None:
    """Return the reader of a group, or None where it has a bias alone."""
    readers = [reader for reader in READERS if any(role in group.parts for role in reader.signs)]
    if len(readers) > 1:
        kinds = " and ".join(reader.kind for reader in readers)
        raise group.error(f"must be changed in one way, not by {kinds} at once")
    return readers[0] if readers else None
