"""The size of a picture from its aspect: 16:9 in about a megapixel."""

import math
import re

from ..checks import excerpt, integer, number, string
from ..errors import RequestError

ASPECTS = ("21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16", "9:21")
"""The usual aspects, for programs that offer a choice; any other is taken as well."""
MEGAPIXEL = 1 << 20  # pixels: 1024 x 1024
LARGEST = 4096  # pixels along a side
STEEPEST = 16  # the most that a side may be longer than the other
AREAS = 0.75, 1.15  # the sizes that are considered, as shares of the area
NEAR, FAR = 0.005, 0.1  # the weight of a deviation in the area, against one in the aspect


def size_for_aspect(aspect: str, area: int = MEGAPIXEL, multiple: int = 16) -> tuple[int, int]:
    """Return the width and height of about this aspect ("16:9") and area in pixels.

    Both are multiples of `multiple`. A size with the exact aspect is preferred to one that is
    nearer to the area.
    """
    ratio = _ratio(string("aspect", aspect))
    integer("area", area, 1, LARGEST**2)
    number("multiple", multiple, 1, LARGEST)
    widths = range(multiple, LARGEST + 1, multiple)
    sizes = [(w, h) for w in widths for h in {*_heights(w, ratio, multiple)}]
    near = [s for s in sizes if AREAS[0] * area <= s[0] * s[1] <= AREAS[1] * area]

    def badness(size: tuple[int, int]) -> float:
        width, height = size
        off = abs(math.log(width / height / ratio))
        return off + (NEAR if near else FAR) * abs(math.log(width * height / area))

    return min(near or sizes, key=badness)


def _heights(width: int, ratio: float, multiple: int) -> list[int]:
    """Return the multiples next to the height that the aspect gives."""
    below = int(width / ratio / multiple) * multiple
    return [h for h in (below, below + multiple) if multiple <= h <= LARGEST]


def _ratio(aspect: str) -> float:
    match = re.fullmatch(r"\s*(\d{1,5}(?:\.\d{1,5})?)\s*:\s*(\d{1,5}(?:\.\d{1,5})?)\s*", aspect)
    width, height = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not width or not height:
        raise RequestError(f"aspect must be as 16:9 or 3:4, not {excerpt(aspect)}")
    if max(width, height) > STEEPEST * min(width, height):
        raise RequestError(
            f"aspect must be from 1:{STEEPEST} to {STEEPEST}:1, not {excerpt(aspect)}"
        )
    return width / height
