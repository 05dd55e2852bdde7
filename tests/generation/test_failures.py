"""The device's failures become errors that say what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage import DeviceError, OutOfMemoryError, ZImage, ZImageError
from mlx_zimage.models.transformer import ZImageTransformer

SMALL: dict[str, Any] = {"width": 32, "height": 32, "steps": 1, "seed": 1}


@pytest.fixture
def model(checkpoint: Callable[[str], Path]) -> ZImage:
    return ZImage.load(checkpoint("small"))


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    def arrange(error: BaseException) -> None:
        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(ZImageTransformer, "__call__", fail)

    return arrange


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater than ..."),
        RuntimeError(
            "[METAL] Command buffer execution failed: Insufficient Memory "
            "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)."
        ),
        RuntimeError("cudaMallocAsync(&data, size, stream) failed: out of memory"),
    ],
    ids=str,
)
def test_out_of_memory(
    model: ZImage, fail_with: Callable[[BaseException], None], error: BaseException
) -> None:
    fail_with(error)
    with pytest.raises(OutOfMemoryError, match="32 x 32 pixels do not fit in memory") as caught:
        model.generate("x", **SMALL)
    assert "\n" not in str(caught.value) and "()" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (
            "[METAL] Command buffer execution failed: Impacting Interactivity "
            "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity).",
            "a smaller picture",
        ),
        (
            "[METAL] Command buffer execution failed: Caused GPU Timeout Error "
            "(00000002:kIOGPUCommandBufferCallbackErrorTimeout).",
            "a smaller picture",
        ),
        (
            "[METAL] Command buffer execution failed: Ignored (for causing prior/excessive GPU "
            "errors) (00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored).",
            "start a new one",
        ),
        ("cudaStreamSynchronize failed: an illegal memory access was encountered", "try again"),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "try again"),
    ],
)
def test_refused_by_the_driver(
    model: ZImage, fail_with: Callable[[BaseException], None], message: str, advice: str
) -> None:
    fail_with(RuntimeError(message))
    with pytest.raises(DeviceError, match=advice) as caught:
        model.generate("x", **SMALL)
    assert isinstance(caught.value, ZImageError) and message in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ZeroDivisionError()])
def test_other_errors_pass_through(
    model: ZImage, fail_with: Callable[[BaseException], None], error: Exception
) -> None:
    fail_with(error)
    with pytest.raises(type(error)) as caught:
        model.generate("x", **SMALL)
    assert caught.value is error
