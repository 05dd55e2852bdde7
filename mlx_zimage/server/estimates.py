"""Estimates: what an order would take in memory, and the largest size that fits."""

from typing import Any

from .. import OutOfMemoryError, Request, ZImage
from .orders import Order
from .plans import make_plan

PHASES = ("encode", "denoise", "decode")


def estimated(order: Order, model: ZImage) -> dict[str, Any]:
    """Return the bytes of each phase, and whether they fit; what is wrong with it is raised.

    Pictures of one order are drawn in turn, so that the largest of them counts.
    """
    message, requests = None, [Request.from_dict(order.fields)]
    try:
        requests = make_plan(order, model).requests
    except OutOfMemoryError as error:
        message = " ".join(str(error).splitlines())
    estimate = max((model.estimate(request) for request in requests), key=lambda e: e.peak)
    return {
        "memory": estimate.memory,
        **{name: getattr(estimate, name) for name in PHASES},
        "peak": estimate.peak,
        "device": model.capabilities().device_memory,
        "fits": message is None,
        "message": message,
        "largest": None if message is None else _largest(requests[0], model),
    }


def _largest(request: Request, model: ZImage) -> dict[str, int] | None:
    """Return the largest size of the same aspect that fits; None where none does."""
    about = model.capabilities()
    width, height = request.width or about.width, request.height or about.height
    multiple = about.side_multiple
    low, high = 0, max(width, height) // multiple  # of the longer side, in multiples
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(request, model, _scaled(width, height, middle, multiple)):
            low = middle
        else:
            high = middle - 1
    return _scaled(width, height, low, multiple) if low else None


def _scaled(width: int, height: int, longer: int, multiple: int) -> dict[str, int]:
    scale = longer * multiple / max(width, height)
    sides = {"width": width, "height": height}
    return {n: max(multiple, round(s * scale / multiple) * multiple) for n, s in sides.items()}


def _fits(request: Request, model: ZImage, size: dict[str, int]) -> bool:
    try:
        model.check(request, width=size["width"], height=size["height"])
    except OutOfMemoryError:
        return False
    return True
