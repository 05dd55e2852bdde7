"""Failures of the device, turned into errors that say what to do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import DeviceError, OutOfMemoryError
from ..request import Request

OUT_OF_MEMORY = (
    "malloc",
    "alloc_",
    "_alloc",
    "allocat",
    "out of memory",
    "outofmemory",
    "insufficient memory",
)
"""Words in the plain RuntimeErrors of MLX's backends that tell of too little memory."""
DRIVER = ("[metal]", "command buffer", "cuda", "cudnn", "cublas", "gpu timeout")
"""Words that tell of another refusal by a GPU's driver."""
IGNORED = "ignored (for causing"


@contextmanager
def device_failures(requests: Sequence[Request]) -> Iterator[None]:
    """Raise what MLX's backends report as an OutOfMemoryError or a DeviceError."""
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory(requests, error) from error
    except RuntimeError as error:
        text = str(error).lower()
        if any(word in text for word in OUT_OF_MEMORY):
            raise _out_of_memory(requests, error) from error
        if any(word in text for word in DRIVER):
            raise DeviceError(
                f"the GPU's driver refused the work ({error}); {_advice(text)}"
            ) from error
        raise


def _out_of_memory(requests: Sequence[Request], error: Exception) -> OutOfMemoryError:
    largest = max(requests, key=lambda request: (request.width or 0) * (request.height or 0))
    reason = f" ({error})" if str(error) else ""
    return OutOfMemoryError(
        f"{largest.width} x {largest.height} pixels do not fit in memory{reason}; "
        "ask for a smaller picture, quantize, or load with memory='staged'"
    )


def _advice(text: str) -> str:
    if IGNORED in text:
        return "the driver ignores this process after earlier failures: start a new one"
    return "ask for a smaller picture, or close programs that use the GPU, and try again"
