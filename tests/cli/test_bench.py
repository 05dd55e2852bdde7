"""`bench`, on small models."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage.bench import machine
from mlx_zimage.bench.probe import Probed
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def a_small_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "GEMM", (256, 256, 256))


def test_report(run: Run, here: Path, small: str) -> None:
    arguments = ("--model", small, "--steps", "3", "--runs", "2", "--output", "report.json")
    done = run("bench", *arguments, "--size", "32", "64x32")
    assert (done.status, done.err) == (0, "")
    report: dict[str, Any] = json.loads((here / "report.json").read_text("utf-8"))
    assert report["command"][:4] == ["mlx-zimage", "bench", "--model", report["model"]]
    assert "/" not in "".join(report["command"])  # no place on this machine
    assert report["machine"]["mlx"] in done.out and report["gemm_flops"] > 1e8
    first, second = report["pictures"]
    assert (first["width"], first["height"], first["batch"]) == (32, 32, 1)
    assert (second["width"], second["height"]) == (64, 32)
    assert second["step_flops"] > first["step_flops"]
    stages = {stage["name"]: stage for stage in first["stages"]}
    assert list(stages) == [
        "load text_encoder",
        "encode",
        "load transformer",
        "step",
        "denoise",
        "load vae",
        "decode",
    ]
    assert len(stages["step"]["seconds"]) == 6 and len(stages["decode"]["seconds"]) == 2
    assert all(seconds > 0 for stage in stages.values() for seconds in stage["seconds"])
    assert 0 < stages["step"]["peak"] < first["peak_rss"]
    for stage in stages:
        assert done.out.count(f"\n{stage} ") == 2
    again = run("bench", *arguments)
    assert again.status == 1 and "exists already" in again.error


def test_json_alone(run: Run, small: str) -> None:
    arguments = ("--model", small, "--size", "32", "--steps", "1", "--json")
    done = run("bench", *arguments, "--batch", "2")
    assert json.loads(done.out)["pictures"][0]["batch"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model demo --layers 2", "--layers is for random weights; leave out --model"),
        ("--revision main", "--revision has no effect without --model"),
        ("--runs 0", "Invalid value for '--runs'"),
        ("--size 32y", "--size must be as 1024x768"),
        ("--model demo --size 17", "--width must be a multiple of 16, not 17"),
        ("--model demo --size 32 32x17", "--height must be a multiple of 16, not 17"),
        ("--model demo --steps 2000", "--steps must be a whole number from 1 to 1000"),
        ("--model demo --q 7", "--q must be one of"),
        ("--model demo --memory tiny", "--memory must be one of"),
        ("--probe --size 512", "--probe takes no other option than --json; leave out --size"),
        ("--probe --q 4", "--probe takes no other option than --json; leave out --q"),
        ("--probe -o a.json", "--probe takes no other option than --json; leave out --output"),
    ],
)
def test_refused_before_the_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("mlx_zimage.cli.bench.gemm_rate", work)
    monkeypatch.setattr("mlx_zimage.cli.bench.measure", work)
    done = run("bench", *arguments.split())
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output a.txt", "the output must end in .json"),
        ("--model nowhere", "no such checkpoint"),
        ("--model turbo", "Tongyi-MAI/Z-Image-Turbo"),
    ],
)
def test_refused(run: Run, arguments: str, message: str) -> None:
    done = run("bench", *arguments.split())
    assert (done.status, done.out) == (1, "") and done.error.startswith(message)


RIGHT = Probed("affine", 4, 64, "bfloat16", 1024, 1024, True)
WRONG = Probed("mxfp4", 4, 32, "float16", None, 256, False)


def test_the_table_of_kernels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_zimage.cli.bench.probe", lambda: iter([RIGHT, WRONG]))
    done = run("bench", "--probe")
    assert done.status == 0 and done.out.splitlines() == [
        "mode    bits  group size  dtype     rows by the table  rows as measured",
        "affine  4     64          bfloat16  1024               1024              ok",
        "mxfp4   4     32          float16   -                  256               differs",
        "the table is wrong on this machine in 1 of 2 rows",
    ]
    monkeypatch.setattr("mlx_zimage.cli.bench.probe", lambda: iter([RIGHT]))
    assert run("bench", "--probe").out.endswith("\nthe table is right on this machine\n")
    report = json.loads(run("bench", "--probe", "--json").out)
    assert report["probe"] == [asdict(RIGHT)] and report["machine"]["mlx"]
