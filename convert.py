"""Write a checkpoint in another precision: `python convert.py --help`."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While the libraries load: raised inside their C++, an exception would abort the process.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from mlx_zimage.cli import run

if __name__ == "__main__":
    run("convert", "verify")
