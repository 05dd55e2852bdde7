"""The examples, run as they are against a server with the demo."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import ZImage
from tests.needs import missing
from tools.train_demo.reading import read

from .conftest import Running

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPT = 'a red "circle" on a blue background'


def run(folder: Path, server: Running, *command: str) -> str:
    environment = {**os.environ, "SERVER": server.url}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_the_librarys(file: Path) -> bool:
    expected = ZImage.load("demo").generate(PROMPT, seed=7).image
    with Image.open(file) as drawn:
        return np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_curl(server: Running, tmp_path: Path) -> None:
    printed = run(tmp_path, server, str(EXAMPLES / "curl.sh"), PROMPT, "a.png")
    assert printed == "a.png\n"
    assert is_the_librarys(tmp_path / "a.png")


def test_javascript(server: Running, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        missing("needs node")
    printed = run(tmp_path, server, node, str(EXAMPLES / "draw.mjs"), PROMPT, "a.png")
    assert printed.splitlines()[-1] == "a.png"
    assert is_the_librarys(tmp_path / "a.png")


def test_openai(server: Running, tmp_path: Path) -> None:
    program = str(EXAMPLES / "openai_client.py")
    printed = run(tmp_path, server, sys.executable, program, server.url)
    assert printed.splitlines()[0] == "circle.png, seed 7"
    for name in ("circle", "star", "green"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert read(picture).found, name
