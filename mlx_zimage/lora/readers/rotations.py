"""OFT and BOFT: rotations of blocks of a weight's rows, or of its columns."""

import math

from ..forms import Butterfly, Form, InputRotation, OutputRotation
from ..group import Group, Shapes, Values


def output_shapes(group: Group) -> Shapes:
    """Return the shapes of OFT (n, b, b) and BOFT (m, n, b, b), where n b is the rows."""
    rows = group.shape[0]
    block = group.dimension("oft_blocks", 2)
    dims = len(group.parts["oft_blocks"].shape)
    expected: tuple[int, ...] = (rows // block, block, block)
    if dims == 4:
        stages = group.dimension("oft_blocks", 0)
        expected = (stages, *expected)
        # the last stage takes rows 2^(m-1) b/2 apart together, in groups of twice that
        if block % 2 or rows % (2 ** (stages - 1) * block):
            raise group.error(
                f"has {rows} rows, which {stages} stages of blocks of {block} cannot mix; "
                "the file is for another model"
            )
    if rows % block:
        raise group.error(f"has {rows} rows, which blocks of {block} do not divide")
    rescale = {"rescale": (rows, 1)} if "rescale" in group.parts else {}
    return {"oft_blocks": expected, **rescale}


def output(group: Group, values: Values) -> Form:
    blocks, rescale = values["oft_blocks"], values.get("rescale")
    kind = Butterfly if blocks.ndim == 4 else OutputRotation
    return kind(blocks, values.alpha or 0.0, rescale)


def input_shapes(group: Group) -> Shapes:
    """Return the shapes of a rotation of columns: one block a row, of its upper triangle."""
    columns, count = group.shape[1], group.dimension("oft_R", 0)
    block = _block(group)
    if count != 1 and count * block != columns:
        raise group.error(
            f"has {columns} columns, not {count} blocks of {block}; the file is for another model"
        )
    if columns % block:
        raise group.error(f"has {columns} columns, which blocks of {block} do not divide")
    expected: dict[str, tuple[int, ...]] = {"oft_R": (count, block * (block - 1) // 2)}
    mark = group.parts.get("scaled_oft")
    return expected if mark is None else {**expected, "scaled_oft": mark.shape}


def input(group: Group, values: Values) -> Form:
    return InputRotation(values["oft_R"], _block(group), "scaled_oft" in group.parts)


def _block(group: Group) -> int:
    """Return the size of a block whose upper triangle has as many numbers as a row."""
    numbers = group.dimension("oft_R", 1)
    block = (1 + math.isqrt(1 + 8 * numbers)) // 2
    if block * (block - 1) // 2 != numbers:
        raise group.error(f"must have rows of b (b - 1) / 2 numbers in 'oft_R', not {numbers}")
    return block
