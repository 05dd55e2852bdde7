"""The model that a benchmark measures, and the report that it writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.checkpoint import Checkpoint
from ..files import write_atomically
from ..hub.locate import locate
from ..memory.store import Store
from ..quantization.recipe import Quantization
from ..zimage import ZImage
from .synthetic import synthetic


def open_model(
    source: str | Path | None,
    *,
    quantize: int | str | None = None,
    layers: int | None = None,
    dtype: str | None = None,
    memory: str = "auto",
    revision: str | None = None,
) -> tuple[ZImage, Checkpoint]:
    """Open a model on this machine, or one with random weights in the real shapes for None."""
    if source is None:
        checkpoint, quantization = synthetic(quantize, layers), None
    else:
        checkpoint = Checkpoint.open(locate(source, revision))
        quantization = None if quantize is None else Quantization.parse(quantize)
    return ZImage(checkpoint, Store(checkpoint, quantization, dtype, memory), quantize), checkpoint


def report_text(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def save_report(report: Mapping[str, Any], path: Path, *, overwrite: bool = False) -> None:
    """Write a report as JSON, atomically."""
    text = report_text(report).encode()
    write_atomically(path, lambda file: file.write(text), overwrite=overwrite)
