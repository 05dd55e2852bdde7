"""What can go wrong, as one tree.

ZImageError
├── RequestError (also ValueError)   what was asked for cannot be done
├── CheckpointError                  weights or configs that are missing, broken or of another kind
├── DownloadError                    the Hub is needed and was not allowed, or did not answer
├── LoraError                        a LoRA that does not fit the model
└── OutOfMemoryError                 the request does not fit in this machine's memory

Each message is one line: the rule, the value it met, and what to do about it.
"""


class ZImageError(Exception):
    """The root: `except ZImageError` catches everything this library raises on purpose."""


class RequestError(ZImageError, ValueError):
    """What was asked for cannot be done."""


class CheckpointError(ZImageError):
    """Weights or configs that are missing, broken, or of another kind."""


class DownloadError(ZImageError):
    """The Hub is needed and was not allowed, or did not answer."""


class LoraError(ZImageError):
    """A LoRA that does not fit the model."""


class OutOfMemoryError(ZImageError):
    """The request does not fit in this machine's memory."""
