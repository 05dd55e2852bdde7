"""The geometry of pictures from pictures: sizes, fits, borders and the surroundings of a mask.

Sizes are (width, height), boxes (left, top, right, bottom), all in pixels.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .picture import Picture

Size = tuple[int, int]
Box = tuple[float, float, float, float]
Border = tuple[int, int, int, int]
LANCZOS = Image.Resampling.LANCZOS


def over_white(picture: Picture) -> Image.Image:
    """Return a picture without transparency."""
    image = Image.fromarray(picture.pixels)
    if not picture.has_alpha:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def near_size(size: Size, multiple: int, area: int, most: Size, *, enlarge: bool = False) -> Size:
    """Return the size of about this aspect, in multiples, that has at most this area.

    A size within the area loses what is over a multiple. A larger one shrinks, and a smaller one
    grows with `enlarge`.
    """
    scale = (area / (size[0] * size[1])) ** 0.5
    if scale >= 1 and not enlarge:
        width, height = (side // multiple * multiple for side in size)
    else:
        width, height = (round(side * scale / multiple) * multiple for side in size)
    while width * height > area and max(width, height) > multiple:
        width, height = (
            (width - multiple, height) if width >= height else (width, height - multiple)
        )
    limits = [max(side // multiple * multiple, multiple) for side in most]
    return min(max(width, multiple), limits[0]), min(max(height, multiple), limits[1])


def other_side(side: int, ratio: float, multiple: int, most: int) -> int:
    """Return the multiple that is nearest to `side * ratio`."""
    nearest = round(side * ratio / multiple) * multiple
    return min(max(nearest, multiple), most // multiple * multiple)


@dataclass(frozen=True)
class Placement:
    """A box of a source, and the place in a picture of `size` that it is brought to."""

    size: Size
    box: Box
    place: tuple[int, int, int, int]

    @property
    def is_complete(self) -> bool:
        """Whether the source covers all of the picture."""
        return self.place == (0, 0, *self.size)

    def scaled(self, source: Size, other: Size) -> "Placement":
        """Return the same placement for a source of another size."""
        x, y = other[0] / source[0], other[1] / source[1]
        left, top, right, bottom = self.box
        return Placement(self.size, (left * x, top * y, right * x, bottom * y), self.place)

    def apply(self, image: Image.Image) -> Image.Image:
        """Return the box at the place's size."""
        left, top, right, bottom = self.place
        size = (right - left, bottom - top)
        x, y, far_x, far_y = self.box
        if (far_x - x, far_y - y) == size and (x, y) == (int(x), int(y)):
            return image.crop(self.box)  # every pixel as it is
        return image.resize(size, LANCZOS, box=self.box)


def fitted(source: Size, size: Size, fit: str, multiple: int) -> Placement:
    """Return where a source goes: "stretch" as published, "crop" or "pad" with its own aspect."""
    (width, height), (w, h) = source, size
    over = (width - w, height - h)
    if fit == "stretch":
        return Placement(size, (0, 0, width, height), (0, 0, w, h))
    if fit == "pad":
        scale = min(w / width, h / height)
        inner = (max(round(width * scale), 1), max(round(height * scale), 1))
        left, top = ((a - b) // 2 for a, b in zip(size, inner, strict=True))
        return Placement(size, (0, 0, width, height), (left, top, left + inner[0], top + inner[1]))
    if all(0 <= pixels < multiple for pixels in over):  # not worth a change of all pixels
        left, top = (pixels // 2 for pixels in over)
        return Placement(size, (left, top, left + w, top + h), (0, 0, w, h))
    scale = max(w / width, h / height)
    x, y = (width - w / scale) / 2, (height - h / scale) / 2
    return Placement(size, (x, y, width - x, height - y), (0, 0, w, h))


def bordered(image: Image.Image, border: Border) -> Image.Image:
    """Return an image with a border that continues its edges, and blurs away from them."""
    left, top, right, bottom = border
    if not any(border):
        return image
    pixels = np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), "edge")
    widest = max(border)
    scale = max(widest // 16, 1)  # a wide blur holds no detail that a small picture lacks
    small = Image.fromarray(pixels).reduce(scale)
    small = small.filter(ImageFilter.GaussianBlur(widest / 2 / scale))
    blurred = small.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BICUBIC)
    blurred.paste(image, (left, top))
    return blurred


def grown(size: Size, border: Border, multiple: int) -> Border:
    """Return a border widened, where there is one, so that the sides become multiples."""
    left, top, right, bottom = border
    x, y = -(size[0] + left + right) % multiple, -(size[1] + top + bottom) % multiple
    if left or right:
        left, right = (left, right + x) if right >= left else (left + x, right)
    if top or bottom:
        top, bottom = (top, bottom + y) if bottom >= top else (top + y, bottom)
    return left, top, right, bottom


def surroundings(
    box: tuple[int, int, int, int], margin: int, within: Size, aspect: float | None = None
) -> tuple[int, int, int, int]:
    """Return a box widened by a margin, then towards an aspect as far as the picture reaches."""
    left, top = max(box[0] - margin, 0), max(box[1] - margin, 0)
    right, bottom = min(box[2] + margin, within[0]), min(box[3] + margin, within[1])
    if aspect is not None:
        width, height = right - left, bottom - top
        left, right = _widened(left, right, round(height * aspect), within[0])
        top, bottom = _widened(top, bottom, round(width / aspect), within[1])
    return left, top, right, bottom


def _widened(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """Return an interval of at least this length about the same centre, moved to lie within."""
    length = max(min(length, limit), end - start)
    start = min(max(start - (length - (end - start)) // 2, 0), limit - length)
    return start, start + length
