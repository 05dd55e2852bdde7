"""The start of every program: Ctrl-C ends it at once while the libraries load.

This module lies outside the package because `import mlx_zimage` loads MLX. An exception that Ctrl-C
raises inside MLX's or NumPy's C++ initialization aborts the process or leaves a traceback.
"""

import contextlib
import os
import signal
from typing import Any, NoReturn


def main(*names: str) -> None:
    """Run the command line: `mlx-zimage` with every command, or the first of `names` alone.

    The other `names` are reached by naming them first, as in `convert.py verify FOLDER`.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from mlx_zimage.cli import main as run

    run(*names)


def _interrupted(*_: Any) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
