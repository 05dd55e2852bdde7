"""Z-Image on Apple's MLX: `ZImage.load(...)`, then `generate` or `stream`."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import linux as _linux  # noqa: F401  # before MLX: it loads a faster BLAS
from .capabilities import Capabilities
from .errors import (
    CheckpointError,
    DeviceError,
    DownloadError,
    LoraError,
    OutOfMemoryError,
    RequestError,
    ZImageError,
)
from .events import (
    Calibrated,
    Downloaded,
    Event,
    Finished,
    Result,
    Started,
    Step,
    Truncated,
    Uploaded,
    Written,
)
from .fields import Nag
from .files import check_output, check_outputs, save_array
from .generation.encode import PromptTruncatedWarning
from .hub.locate import locate
from .images.aspect import size_for_aspect
from .images.files import read_metadata, save_picture, save_png
from .lora.loras import AppliedLora
from .lora.source import Lora
from .memory.estimate import Estimate
from .replay import Replay, replay
from .request import Options, Request
from .version import __version__ as __version__
from .zimage import ZImage

if _TYPE_CHECKING:
    from .convert.against import FileState, list_published, verify_published
    from .convert.copies import Copy, list_copies, remove_copy
    from .convert.plan import Conversion
    from .convert.publish import convert_checkpoint
    from .convert.report import check_reportable, measure_conversion
    from .convert.upload import check_upload, upload_checkpoint
    from .convert.verify import verify_checkpoint
    from .hub.download import Remote, download, look_up
    from .hub.published import Published
    from .images.compare import Comparison, compare_pictures
    from .images.page import sheet_page
    from .images.sheet import contact_sheet
    from .lora.info import LoraInfo
    from .lora.listing import list_loras, read_lora
    from .sweep import Sweep, SweepAxis, SweepCell
    from .training.events import Encoded, TrainingStarted, TrainingStep
    from .training.options import TrainingOptions
    from .training.run import train

_LATER = {
    "convert.against": ("FileState", "list_published", "verify_published"),
    "convert.copies": ("Copy", "list_copies", "remove_copy"),
    "convert.plan": ("Conversion",),
    "convert.publish": ("convert_checkpoint",),
    "convert.report": ("check_reportable", "measure_conversion"),
    "convert.upload": ("check_upload", "upload_checkpoint"),
    "convert.verify": ("verify_checkpoint",),
    "hub.download": ("Remote", "download", "look_up"),
    "hub.published": ("Published",),
    "images.compare": ("Comparison", "compare_pictures"),
    "images.page": ("sheet_page",),
    "images.sheet": ("contact_sheet",),
    "lora.info": ("LoraInfo",),
    "lora.listing": ("list_loras", "read_lora"),
    "sweep": ("Sweep", "SweepAxis", "SweepCell"),
    "training.events": ("Encoded", "TrainingStarted", "TrainingStep"),
    "training.options": ("TrainingOptions",),
    "training.run": ("train",),
}
"""Names by the module that holds them, which is imported when one is first used."""

__all__ = [
    "AppliedLora",
    "Calibrated",
    "Capabilities",
    "CheckpointError",
    "Comparison",
    "Conversion",
    "Copy",
    "DeviceError",
    "DownloadError",
    "Downloaded",
    "Encoded",
    "Estimate",
    "Event",
    "FileState",
    "Finished",
    "Lora",
    "LoraError",
    "LoraInfo",
    "Nag",
    "Options",
    "OutOfMemoryError",
    "PromptTruncatedWarning",
    "Published",
    "Remote",
    "Replay",
    "Request",
    "RequestError",
    "Result",
    "Started",
    "Step",
    "Sweep",
    "SweepAxis",
    "SweepCell",
    "TrainingOptions",
    "TrainingStarted",
    "TrainingStep",
    "Truncated",
    "Uploaded",
    "Written",
    "ZImage",
    "ZImageError",
    "check_output",
    "check_outputs",
    "check_reportable",
    "check_upload",
    "compare_pictures",
    "contact_sheet",
    "convert_checkpoint",
    "download",
    "list_copies",
    "list_loras",
    "list_published",
    "locate",
    "look_up",
    "measure_conversion",
    "read_lora",
    "read_metadata",
    "remove_copy",
    "replay",
    "save_array",
    "save_picture",
    "save_png",
    "sheet_page",
    "size_for_aspect",
    "train",
    "upload_checkpoint",
    "verify_checkpoint",
    "verify_published",
]


def __dir__() -> list[str]:
    """Show the public names alone, not the modules that import them."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> _Any:
    """Import a name that is not needed to draw, so that the package is imported faster."""
    for module, names in _LATER.items():
        if name in names:
            value = getattr(_import_module(f".{module}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
