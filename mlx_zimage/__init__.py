"""Z-Image on Apple's MLX: `ZImage.load(...)`, then `generate` or `stream`."""

from . import linux as linux  # before MLX
from .errors import (
    CheckpointError,
    DownloadError,
    LoraError,
    OutOfMemoryError,
    RequestError,
    ZImageError,
)
from .hub.download import Downloaded, download
from .images.png import read_metadata, save_png
from .memory.estimate import Estimate
from .request import Event, Finished, Request, Result, Started, Step, Truncated
from .zimage import Capabilities, PromptTruncatedWarning, ZImage

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
