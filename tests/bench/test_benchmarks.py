"""What stands around the contenders; they themselves need the real widths."""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import race as race_module
from benchmarks.plot import plot
from benchmarks.race import race
from benchmarks.tables import PAGE, PLOTS, RESULTS, page, plots

FAKE = """
import json, sys, time
case = json.loads(sys.argv[1])
print("a library says something")
print(json.dumps({"ready": True, "versions": {"fake": "1"}}), flush=True)
for number, _ in enumerate(sys.stdin):
    if number == case.get("dies"):
        sys.exit(4)
    with open(case["log"], "a") as log:
        print(case["names"][__file__[-4]], file=log)
    print(json.dumps({"seconds": 0.5}), flush=True)
    if number == case.get("leaves"):
        sys.exit(5)
print(json.dumps({"peak": None, "peak_rss": 7}))
"""


def test_contenders_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(FAKE)
    (tmp_path / "c.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(race_module, "ROOM", tmp_path)
    monkeypatch.setattr(race_module, "FILES", {"A": "a.py", "B": "b.py", "C": "c.py"})
    case = {"log": str(tmp_path / "log"), "names": {"a": "A", "b": "B"}}
    found = race(case, dict.fromkeys("ABC", sys.executable), 3)
    assert (tmp_path / "log").read_text().split() == ["A", "B", "B", "A", "A", "B"]
    assert found["A"]["seconds"] == [0.5] * 3
    assert found["B"]["peak_rss"] == 7
    assert found["C"] == {"failed": "ended with 3"}


@pytest.mark.parametrize(("way", "status"), [("dies", 4), ("leaves", 5)])
def test_a_contender_that_dies_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, status: int
) -> None:
    """At work, or between two turns."""
    (tmp_path / "a.py").write_text(FAKE)
    monkeypatch.setattr(race_module, "ROOM", tmp_path)
    monkeypatch.setattr(race_module, "FILES", {"A": "a.py"})
    case = {"log": str(tmp_path / "log"), "names": {"a": "A"}, way: 1}
    found = race(case, {"A": sys.executable}, 3)
    assert found == {"A": {"failed": f"ended with {status}"}}


@pytest.mark.parametrize("over", ["side", "quantize"])
def test_plot(over: str) -> None:
    values: tuple[Any, ...] = (512, 1024) if over == "side" else (4, 8, None)
    row = {"contender": "ours", "side": 512, "dtype": "float32", "quantize": None, "batch": 1}
    measured = {"seconds": [1.0, 3.0, 2.0], "peak": 10**9, "peak_rss": 2 * 10**9}
    rows = [{**row, **measured, over: value} for value in values]
    rows.append({**row, "contender": "mflux", "failed": "ended with 1"})
    picture = ElementTree.fromstring(plot(rows))
    lines = [line for line in picture.iter() if line.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [len(values)] * 2


MACHINE = {
    "chip": "a chip",
    "cores": 2,
    "memory_gb": 25.3,
    "device": "cpu",
    "device_name": "",
    "os": "Linux",
    "mlx": "0.32",
    "mlx_zimage": "0.1",
}


def test_page(tmp_path: Path) -> None:
    row = {"stage": "step", "side": 512, "dtype": "float32", "quantize": None, "batch": 1}
    row |= {"tokens": 60, "layers": 4, "flops": 15 * 10**9, "versions": {"mlx": "0.32"}}
    ours = {"contender": "ours", "seconds": [3.0, 2.0, 4.0], "peak": 10**9, "peak_rss": 2 * 10**9}
    peer = {"contender": "diffusers", "seconds": [6.0], "peak": None, "peak_rss": 3 * 10**9}
    broken = {"contender": "mflux", "failed": "ended with 1"}
    race = {"machine": MACHINE, "command": ["python", "x"]}
    race["results"] = [{**row, **each} for each in (ours, peer, broken)]
    stages = [{"name": "step", "seconds": [2.0, 3.0], "peak": 4 * 10**9}]
    picture = {"width": 64, "height": 32, "batch": 2, "stages": stages}
    picture |= {"step_flops": 10**9, "peak_rss": 5 * 10**9}
    bench = {"machine": {**MACHINE, "device": "gpu", "os": "Darwin 15"}, "command": ["y"]}
    bench |= {"model": "demo", "quantize": 4, "dtype": "bfloat16", "memory": "staged"}
    bench |= {"gemm_flops": 8 * 10**8, "pictures": [picture]}
    peaks = {**bench, "blocks": 1, "peaks": picture}
    for name, report in (("a", race), ("b", bench), ("c", peaks)):
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    found = page(tmp_path)
    assert "Files so far: 1 from a CPU, 2 from a Mac." in found
    assert (
        "| step 512², float32 | ours | 3.000 | 2.000 to 4.000 | 5 | 1.00 | 1.00 GB | 2.00 GB |"
        in found
    )
    assert (
        "| step 512², float32 | diffusers | 6.000 | 6.000 to 6.000 | 2 | 2.00 |  | 3.00 GB |"
        in found
    )
    assert "| step 512², float32 | mflux | ended with 1 | | | | | |" in found
    assert "| 64x32, 2 at once | step | 2.50 | 2.00 to 3.00 | 4.00 GB |" in found
    assert "| 64x32, 2 at once | share of that rate in a step | 50% | | RSS 5.00 GB |" in found
    assert "1 each was run" in found
    assert "| 64x32 | step | 4.00 GB |" in found


def test_every_figure_of_the_page_is_in_a_file() -> None:
    """`python -m benchmarks.tables` makes it again."""
    assert PAGE.read_text("utf-8") == page(RESULTS)
    assert {file.name: file.read_text("utf-8") for file in PLOTS.iterdir()} == plots(RESULTS)
