"""Z-Image on Apple's MLX: `ZImage.load(...)`, then `generate` or `stream`."""

from . import linux as linux  # before MLX
from .checkpoints.download import Downloaded, download
from .checkpoints.estimate import Estimate
from .errors import (
    CheckpointError,
    DownloadError,
    LoraError,
    OutOfMemoryError,
    RequestError,
    ZImageError,
)
from .images.png import read_metadata, save_png
from .pipeline import Capabilities, PromptTruncatedWarning, ZImage
from .request import Event, Finished, Request, Result, Started, Step, Truncated

__version__ = "0.1.0"

__all__ = [
    "Capabilities",
    "CheckpointError",
    "DownloadError",
    "Downloaded",
    "Estimate",
    "Event",
    "Finished",
    "LoraError",
    "OutOfMemoryError",
    "PromptTruncatedWarning",
    "Request",
    "RequestError",
    "Result",
    "Started",
    "Step",
    "Truncated",
    "ZImage",
    "ZImageError",
    "download",
    "read_metadata",
    "save_png",
]
