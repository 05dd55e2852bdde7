"""The process that MLX works in: its threads and its device do not survive a fork."""

import os

from .errors import RequestError

_owner: int | None = None


def check_process() -> None:
    """Raise in a child that was forked from a process in which this was called before.

    MLX's threads run in the process that first used it; in a forked child every computation would
    wait for them forever. A fork before the first use is harmless.
    """
    global _owner  # noqa: PLW0603  # a fact about the process, not about a model
    if _owner is None:
        _owner = os.getpid()
    if _owner != os.getpid():
        raise RequestError(
            f"MLX was first used in another process ({_owner}), and its threads do not survive a "
            "fork; start the child with multiprocessing's 'spawn' method, or load the model "
            "in the child only"
        )
