"""The BLAS and the malloc of a Linux CPU, each in a process of its own."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_zimage import linux

ROOT = Path(__file__).parents[1]
FEW, MANY = 1_000, 100_000  # page faults; measured: 0 and 163,850

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere MLX brings a fast BLAS and keeps what it frees"
)


def _run(code: str, **environment: str) -> str:
    others = {name: value for name, value in os.environ.items() if "MLX_ZIMAGE_" not in name}
    return subprocess.check_output(
        [sys.executable, "-c", code], text=True, cwd=ROOT, env={**others, **environment}
    )


def _has_openblas() -> bool:
    try:
        ctypes.CDLL(linux.OPENBLAS)
    except OSError:
        return False
    return True


MULTIPLY = """
import mlx_zimage, mlx.core as mx
mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
"""


@pytest.mark.skipif(not _has_openblas(), reason=f"this machine lacks {linux.OPENBLAS}")
@pytest.mark.parametrize("wanted", ["1", "0"])
def test_mlx_multiplies_with_openblas(wanted: str, tmp_path: Path) -> None:
    """The dynamic linker itself tells which library MLX's call of cblas_sgemm goes to."""
    log = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "log")}
    _run(MULTIPLY, MLX_ZIMAGE_OPENBLAS=wanted, **log)
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    bindings = [line for line in lines if "libmlx" in line and "`cblas_sgemm'" in line]
    assert len(bindings) == 1
    assert (linux.OPENBLAS in bindings[0].partition(" to ")[2]) is (wanted == "1")


COUNT = """
import resource, mlx.core as mx
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def rss():
    return 4096 * int(open("/proc/self/statm").read().split()[1])
a = mx.ones((1 << 24,)); mx.eval(a); mx.eval(a * a)
before = faults()
for _ in range(10):
    mx.eval(a * a)
print(faults() - before)
del a
before = rss(); linux.give_back(); print(before - rss())
"""
IMPORT = "import mlx_zimage; from mlx_zimage import linux\n"


@pytest.mark.slow
@pytest.mark.parametrize("program", [f"{IMPORT}linux.keep_freed_memory()\n", "benchmarks", "tools"])
def test_programs_keep_freed_memory_until_it_is_given_back(program: str) -> None:
    """Measured: 0 new pages, and 128 MB back."""
    start = program if program.startswith(IMPORT) else f"import {program}\n{IMPORT}"
    faults, returned = map(int, _run(start + COUNT).split())
    assert faults < FEW
    assert returned > 64 << 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "environment"),
    [
        (IMPORT, {}),
        (f"{IMPORT}linux.keep_freed_memory()\n", {"MLX_ZIMAGE_MALLOC": "0"}),
    ],
)
def test_an_import_leaves_malloc_alone(start: str, environment: dict[str, str]) -> None:
    """Measured: 163,850 new pages, as a host without this package has them."""
    faults, _ = map(int, _run(start + COUNT, **environment).split())
    assert faults > MANY


HOLES = """
import numpy as np
def rss():
    return 4096 * int(open("/proc/self/statm").read().split()[1])
np.ones(3 << 20)  # 24 MB: from now on glibc takes what is smaller from its heap
blocks = [(np.ones(2 << 20), np.ones(1 << 14)) for _ in range(8)]
used = [small for _, small in blocks]
del blocks
before = rss(); linux.give_back(); print(before - rss())
"""


def test_give_back_works_in_a_host_with_its_own_malloc() -> None:
    """Freed memory that lies between memory in use stays with malloc until it is given back."""
    assert int(_run(IMPORT + HOLES)) > 64 << 20
