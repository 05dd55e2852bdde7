"""A fork after MLX was used: a clear error instead of a child that hangs."""

import subprocess
import sys
from multiprocessing import get_context

from mlx_zimage.process import check_process

FORK = """
import os
from mlx_zimage import ZImageError
from mlx_zimage.process import check_process
{before}
child = os.fork()
if child == 0:
    try:
        check_process()
    except ZImageError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
check_process()
"""


def _forked(before: str) -> str:
    return subprocess.check_output(
        [sys.executable, "-c", FORK.format(before=before)], text=True, timeout=60
    )


def test_a_forked_child_is_told() -> None:
    message = _forked(before="check_process()")
    assert "do not survive a fork" in message and "'spawn'" in message
    assert message.count("\n") == 1


def test_a_fork_before_the_first_use_is_harmless() -> None:
    assert _forked(before="") == ""


def test_spawn_works() -> None:
    check_process()
    with get_context("spawn").Pool(1) as pool:
        pool.apply(check_process)
