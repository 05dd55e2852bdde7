"""The library's errors, as one tree.

ZImageError
├── RequestError (also ValueError)   the request is invalid, or cannot be done with this model
├── CheckpointError                  weights or configs are missing, damaged or of another model
├── DownloadError                    the Hub is needed and is not allowed, or does not answer
├── LoraError                        a LoRA does not fit the model
├── OutOfMemoryError                 the request does not fit in this machine's memory
└── DeviceError                      the GPU's driver refuses or has stopped a computation

Each message is one line: the rule, the value that breaks it, and what to do.
"""


class ZImageError(Exception):
    """The root: `except ZImageError` catches everything this library raises on purpose."""


class RequestError(ZImageError, ValueError):
    """The request is invalid, or cannot be done with this model."""


class CheckpointError(ZImageError):
    """Weights or configs are missing, damaged or of another model."""


class DownloadError(ZImageError):
    """The Hub is needed and is not allowed, or does not answer."""


class LoraError(ZImageError):
    """A LoRA does not fit the model."""


class OutOfMemoryError(ZImageError):
    """The request does not fit in this machine's memory."""


class DeviceError(ZImageError):
    """The GPU's driver refuses or has stopped a computation."""
