"""What stands around the contenders; they themselves need the real widths."""

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import race as race_module
from benchmarks.plot import plot
from benchmarks.race import race
from benchmarks.tables import PAGE, RESULTS, page

FAKE = """
import json, sys, time
case = json.loads(sys.argv[1])
print("a library says something")
print(json.dumps({"ready": True, "versions": {"fake": "1"}}), flush=True)
for _ in sys.stdin:
    with open(case["log"], "a") as log:
        print(case["names"][__file__[-4]], file=log)
    print(json.dumps({"seconds": 0.5}), flush=True)
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


def test_every_figure_of_the_page_is_in_a_file() -> None:
    """`python -m benchmarks.tables` makes it again."""
    assert PAGE.read_text("utf-8") == page(RESULTS)
