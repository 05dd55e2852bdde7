"""Types: one run of mypy over a file of right and wrong calls.

A line ends with the type it reveals (`# -> type`), with the error it must give (`# error: text`),
or with nothing, and then it must pass.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # mypy begins without a cache in a fresh clone
ROOT = Path(__file__).parents[1]

CALLS = """
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_zimage import Options, Request, Result, ZImage


def requests(
    result: Result, arrays: list[np.ndarray], options: Options, any: dict[str, Any]
) -> None:
    Request("x", seed=7, width=64, height=None)
    Request("x", latents=result.latents)
    Request("x", latents=arrays[0], schedule=[1.0, 0.5])
    Request("x", schedule=np.array([1, 0.5]), cfg_normalization=True, guidance=4)
    Request(["x", "y"], seed=[1, 2], negative_prompt=("a", "b"))
    Request(prompt_embeds=result.prompt_embeds)
    Request(prompt_embeds=[result.prompt_embeds, arrays[0]])
    Request(prompt_embeds=arrays, latents=[[[[1.0]]]])
    Request("x", **options)
    Request(**any)
    Request(1)  # error: Argument 1 to "Request" has incompatible type "int"
    Request("x", wdith=3)  # error: Unexpected keyword argument "wdith"
    Request("x", width="a")  # error: Argument "width" to "Request" has incompatible type "str"
    Request("x", seed=1.5)  # error: Argument "seed" to "Request" has incompatible type "float"
    Request("x", guidance="2")  # error: Argument "guidance" to "Request" has incompatible
    Request("x", latents="zeros")  # error: Argument "latents" to "Request" has incompatible
    Request("x", steps=[1])  # error: Argument "steps" to "Request" has incompatible


def fields(request: Request, result: Result) -> None:
    reveal_type(request.prompt)  # -> str | tuple[str, ...] | None
    reveal_type(request.seed)  # -> int | tuple[int, ...] | None
    reveal_type(request.width)  # -> int | None
    reveal_type(request.schedule)  # -> str | tuple[float, ...] | None
    reveal_type(request.prompts)  # -> tuple[str, ...]
    reveal_type(request.replace(seed=[1]))  # -> mlx_zimage.request.Request
    request.replace(prompt="y", latents=request.latents, prompt_embeds=request.prompt_embeds)
    request.replace(stpes=3)  # error: Unexpected keyword argument "stpes"
    reveal_type(result.latents)  # -> mlx.core.array
    reveal_type(result.request.seed)  # -> int | tuple[int, ...] | None
    request.width = 3  # error: Property "width" defined in "Request" is read-only


def model(request: Request, result: Result, one: str | list[str], options: Options) -> None:
    zimage = ZImage.load("demo", quantize=4, dtype="float16", memory="staged")
    ZImage.load(quantize="mxfp4", dtype=None)
    reveal_type(zimage.generate("x"))  # -> mlx_zimage.events.Result
    reveal_type(zimage.generate("x", seed=7, width=64))  # -> mlx_zimage.events.Result
    reveal_type(zimage.generate("x", **options))  # -> mlx_zimage.events.Result
    reveal_type(zimage.generate(["x"], seed=[1]))  # -> list[mlx_zimage.events.Result]
    reveal_type(zimage.generate(("x", "y"), seed=7))  # -> list[mlx_zimage.events.Result]
    either = zimage.generate(request)
    reveal_type(either)  # -> mlx_zimage.events.Result | list[mlx_zimage.events.Result]
    either = zimage.generate(one)
    reveal_type(zimage.generate(prompt_embeds=result.prompt_embeds))  # -> mlx_zimage.events.Result
    several = zimage.generate(prompt_embeds=[result.prompt_embeds], latents=result.latents)
    reveal_type(several)  # -> list[mlx_zimage.events.Result]
    reveal_type(zimage.check(["x"], width=64))  # -> mlx_zimage.request.Request
    zimage.estimate("x", width=64)
    zimage.stream(request, width=64)
    zimage.generate("x", wdith=3)  # error: Unexpected keyword argument "wdith" for overloaded
    zimage.generate("x", width="a")  # error: No overload variant of "generate" of "ZImage"
    zimage.generate(1)  # error: No overload variant of "generate" of "ZImage"
    zimage.stream("x", wdith=3)  # error: Unexpected keyword argument "wdith" for "stream"
    zimage.check("x", width="a")  # error: Argument "width" to "check" of "ZImage" has
    zimage.estimate("x", seed="a")  # error: Argument "seed" to "estimate" of "ZImage" has
    ZImage.load(quantize=7)  # error: Argument "quantize" to "load" of "ZImage" has incompatible
    ZImage.load(quantize=4.0)  # error: Argument "quantize" to "load" of "ZImage" has incompatible
    ZImage.load(dtype="f32")  # error: Argument "dtype" to "load" of "ZImage" has incompatible
    ZImage.load(memory="big")  # error: Argument "memory" to "load" of "ZImage" has incompatible
"""


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The first message of mypy for each line."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "calls.py").write_text(CALLS)
    options = ["--strict", "--config-file=", "--follow-imports=silent"]
    options.append(f"--cache-dir={ROOT}/.mypy_cache/calls")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "calls.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.stderr, run.stderr
    first: dict[int, str] = {}
    for line in run.stdout.splitlines():
        if match := re.match(r"calls\.py:(\d+): (.*)", line):
            first.setdefault(int(match[1]), match[2])
    return first


LINES = [
    pytest.param(number, line.strip(), id=line.strip())
    for number, line in enumerate(CALLS.splitlines(), 1)
    if line.startswith("    ")
]


@pytest.mark.parametrize(("number", "line"), LINES)
def test_calls(messages: dict[int, str], number: int, line: str) -> None:
    message = messages.get(number, "")
    _, _, revealed = line.partition("  # -> ")
    _, _, error = line.partition("  # error: ")
    if revealed:
        assert message == f'note: Revealed type is "{revealed}"'
    elif error:
        assert message.startswith(f"error: {error}")
    else:
        assert message == ""


def test_every_other_line_passes(messages: dict[int, str]) -> None:
    assert set(messages) <= {param.values[0] for param in LINES}
