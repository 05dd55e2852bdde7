"""The memory told before a run, against the peak that MLX measures in one."""

import gc
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_zimage import TrainingStarted, TrainingStep
from mlx_zimage.memory.estimate import TOLERANCE

from .conftest import Train, write_pictures


@pytest.mark.slow  # steps of the demo's width
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("side", "batch", "bits"), [(128, 16, None), (128, 16, 4), (384, 1, None)])
def test_peak(
    side: int,
    batch: int,
    bits: int | None,
    checkpointing: bool,
    tmp_path: Path,
    small_run: Train,
    checkpoint: Callable[[str], Path],
) -> None:
    """The demo's transformer: widths of a twentieth, as many arrays."""
    folder = write_pictures(tmp_path / "p", ((side, side),) * 2)
    for file in folder.glob("*.txt"):  # as long as each other, as they are in a batch of one
        file.write_text("the red one", "utf-8")
    options = {
        "model": checkpoint("demo"),
        "resolution": side,
        "batch": batch,
        "quantize": bits,
        "checkpointing": checkpointing,
        "targets": ("attention", "feed_forward"),
        "caption_dropout": 0.0,
    }
    out = tmp_path / "a.safetensors"
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()  # of tests that ran earlier in this process
    mx.reset_peak_memory()
    events = small_run(folder, out, steps=2, **options)
    measured = mx.get_peak_memory() - before
    started, *_ = events
    assert isinstance(started, TrainingStarted) and isinstance(events[-1], TrainingStep)
    share = started.peak / measured
    assert abs(share - 1) < TOLERANCE
