"""Reading is stateless: each load reads each file once, in whatever thread asks."""

import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_zimage import device
from mlx_zimage.checkpoint import assemble
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.weights import safetensors
from mlx_zimage.weights.safetensors import read_header


class Counts:
    """How often MLX's reader and the reader of bytes are called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.loads = self.bytes = 0
        lock, load, read_bytes = threading.Lock(), mx.load, safetensors.read_bytes

        def counting_load(*args: Any, **kwargs: Any) -> Any:
            with lock:
                self.loads += 1
            return load(*args, **kwargs)

        def counting_bytes(*args: Any) -> np.ndarray:
            with lock:
                self.bytes += 1
            return read_bytes(*args)

        monkeypatch.setattr(mx, "load", counting_load)
        monkeypatch.setattr(safetensors, "read_bytes", counting_bytes)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


def _parameters(module: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(module.parameters()))


def test_each_load_reads_the_file_once(checkpoint: Callable[[str], Path], counts: Counts) -> None:
    stored = Checkpoint.open(checkpoint("demo"))["transformer"]
    for _ in range(3):
        stored.load(mx.bfloat16)  # as the file has them
    assert (counts.loads, counts.bytes) == (3, 0)


def test_threads_share_nothing(checkpoint: Callable[[str], Path], counts: Counts) -> None:
    stored = Checkpoint.open(checkpoint("demo"))["transformer"]
    expected = _parameters(stored.load(mx.bfloat16))
    counts.loads = 0
    loaded: list[dict[str, mx.array]] = []

    def load() -> None:
        loaded.extend(_parameters(stored.load(mx.bfloat16)) for _ in range(3))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts.loads, counts.bytes) == (12, 0)
    for parameters in loaded:
        assert all(mx.array_equal(parameters[key], array) for key, array in expected.items())


def test_batches_are_bounded(
    checkpoint: Callable[[str], Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Checkpoint.open(checkpoint("demo"))["transformer"]
    expected = _parameters(stored.load(mx.bfloat16))
    size = sum(array.nbytes for array in expected.values())
    counts.loads = 0
    monkeypatch.setattr(assemble, "BATCH", size // 4)
    parameters = _parameters(stored.load(mx.bfloat16))
    assert 4 <= counts.loads <= 12
    assert all(mx.array_equal(parameters[key], array) for key, array in expected.items())


def test_a_type_that_mlx_lacks_is_read_as_bytes(tmp_path: Path, counts: Counts) -> None:
    """MLX's reader refuses the file as soon as one tensor has such a type."""
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = json.dumps(
        {
            "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "odd": {"dtype": "F8_E5M2FNUZ", "shape": [4], "data_offsets": [24, 28]},
        }
    ).encode()
    data = struct.pack("<Q", len(header)) + header + numbers.tobytes() + bytes(4)
    (tmp_path / "a.safetensors").write_bytes(data)
    entries = read_header(tmp_path / "a.safetensors")
    arrays = entries["x"].file.read([entries["x"]])
    assert arrays["x"].tolist() == numbers.tolist()
    assert counts.bytes == 1


def test_weights_leave_shared_memory_on_cuda_alone(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each array is written anew by the device; the numbers stay the same."""
    stored = Checkpoint.open(checkpoint("demo"))["transformer"]
    multiply, written = mx.multiply, []

    def counting(a: Any, b: Any, **kwargs: Any) -> mx.array:
        written.append(a)
        return multiply(a, b, **kwargs)

    monkeypatch.setattr(mx, "multiply", counting)
    expected = _parameters(stored.load(mx.bfloat16))
    assert not written
    monkeypatch.setattr(device, "kind", lambda: "cuda")
    parameters = _parameters(stored.load(mx.bfloat16))
    assert len(written) == len(expected)
    assert all(mx.array_equal(parameters[key], array) for key, array in expected.items())
