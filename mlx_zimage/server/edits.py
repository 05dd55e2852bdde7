"""Edits: uploaded pictures and masks made into a request's fields."""

import io
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from .encoding import to_base64
from .failures import Refusal
from .orders import Order
from .pictures import check_picture

IMAGES = ("image", "image[]")


def edited(order: Order, files: Sequence[tuple[str, bytes]]) -> Order:
    """Return an order that changes an uploaded picture. OpenAI's mask is transparent there."""
    images = [data for name, data in files if name in IMAGES]
    masks = [data for name, data in files if name == "mask"]
    if len(images) != 1 or len(masks) > 1:
        name, number = ("image", len(images)) if len(images) != 1 else ("mask", len(masks))
        text = f"{name} must be one picture, not {number}"
        raise Refusal(400, text, "invalid_value", name)
    check_picture(images[0], "image")
    fields = {**order.fields, "image": data_url(images[0])}
    if masks:
        _check_mask(masks[0], _size(images[0]))
        fields["mask"] = data_url(masks[0])  # the library takes transparency for what is painted
    return replace(order, fields=fields)


def data_url(data: bytes) -> str:
    """Return a picture's file as a data URL; readers look at the bytes alone."""
    return f"data:image/png;base64,{to_base64(data)}"


def _size(data: bytes) -> tuple[int, int]:
    """Return a picture's size as it is seen."""
    with Image.open(io.BytesIO(data)) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        return image.size[::-1] if turned else image.size


def _check_mask(mask: bytes, size: tuple[int, int]) -> None:
    """Refuse a mask without transparency, which the library would read as white and black."""
    check_picture(mask, "mask")
    with Image.open(io.BytesIO(mask)) as image:
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        width, height = image.size
    if not has_alpha:
        text = "mask must be a PNG that is transparent where the picture is to be changed"
        raise Refusal(400, text, "invalid_image", "mask")
    if (width, height) != size:
        text = f"mask must have the image's size, {size[0]}x{size[1]}, not {width}x{height}"
        raise Refusal(400, text, "invalid_image", "mask")
