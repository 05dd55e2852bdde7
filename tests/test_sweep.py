"""The grid of a sweep: cells, labels, files, and going on with what was stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mlx_zimage import RequestError, Sweep, SweepAxis, save_picture

FOX: dict[str, Any] = {"prompt": "a fox", "model": "demo"}


def axes(**values: list[Any]) -> list[SweepAxis]:
    return [SweepAxis.of(name, listed) for name, listed in values.items()]


def save(plan: Sweep, folder: Path, numbers: list[int]) -> list[Path]:
    files = plan.files(folder / "pictures")
    for number in numbers:
        cell = plan.cells[number]
        metadata = {"request": cell.request.to_dict(), **cell.settings}
        picture = Image.new("RGB", (32, 16 + number), (number * 20, 90, 0))
        save_picture(picture, files[number], metadata)
    return files


def test_rows_and_columns() -> None:
    plan = Sweep.plan(FOX, axes(steps=[1, 3, 8], seed=[1, 2]))
    assert (plan.width, len(plan.cells)) == (3, 6)
    assert plan.row_labels == ["seed 1", "seed 2"]
    assert plan.column_labels == ["steps 1", "steps 3", "steps 8"]
    requests = [(cell.request.seed, cell.request.steps) for cell in plan.cells]
    assert requests == [(1, 1), (1, 3), (1, 8), (2, 1), (2, 3), (2, 8)]
    assert [cell.name for cell in plan.cells][:2] == ["seed-1_steps-1", "seed-1_steps-3"]


def test_one_axis() -> None:
    plan = Sweep.plan(FOX, axes(guidance=[0.0, 0.5]))
    assert (plan.width, plan.row_labels) == (2, [])
    assert plan.column_labels == ["guidance 0", "guidance 0.5"]
    long = Sweep.plan(FOX, axes(seed=[*range(20)]))
    assert (long.width, long.column_labels) == (5, [])
    assert long.row_labels == [f"seed {n} to seed {n + 4}" for n in (0, 5, 10, 15)]


def test_three_axes_make_an_even_sheet() -> None:
    plan = Sweep.plan(FOX, axes(seed=[1, 2, 3, 4], steps=[1, 2], shift=[3.0, 6.0]))
    assert plan.width == len(plan.row_labels) == 4
    assert plan.column_labels[1] == "steps 1, shift 6"


def test_no_axis_is_one_picture() -> None:
    plan = Sweep.plan(FOX, axes(steps=[4]))
    assert (len(plan.cells), plan.width, plan.row_labels, plan.column_labels) == (1, 1, [], [])
    assert plan.cells[0].request.steps == 4


def test_templates() -> None:
    axis = SweepAxis.of_texts("prompt", ["a {red|blue} fox in {snow}, {day|night}"])
    assert axis.labels == ("red, day", "red, night", "blue, day", "blue, night")
    assert axis.values[1] == {"prompt": "a red fox in {snow}, night"}
    several = SweepAxis.of_texts("prompt", ["a fox", "a {b|c}"])
    assert several.labels == ("a fox", "a b", "a c")
    with pytest.raises(RequestError, match="at most 1000 pictures"):
        SweepAxis.of_texts("prompt", ["{a|b}" * 40])


def test_cells_of_one_model_are_a_group() -> None:
    plan = Sweep.plan(FOX, axes(seed=[1, 2], quantize=[None, 4]))
    assert [len(cells) for cells in plan.groups.values()] == [2, 2]
    assert [dict(settings)["quantize"] for settings in plan.groups] == [None, 4]
    assert [label for cell in plan.cells for label in cell.labels[1:]][:2] == [
        "quantize as stored",
        "quantize 4",
    ]


def test_a_negative_prompt_where_guidance_is_off() -> None:
    fields = {**FOX, "negative_prompt": "snow"}
    plan = Sweep.plan(fields, axes(guidance=[0.0, 2.0]))
    assert [cell.request.negative_prompt for cell in plan.cells] == [None, "snow"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": [*range(1000)], "steps": [*range(1, 1001)]}, "not 1000 x 1000 = 1,000,000"),
        ({"steps": []}, "at least one value of steps"),
        ({"steps": [4, 4]}, "different values of steps: steps 4 twice"),
        ({"steps": [4, 0]}, "steps must be a whole number"),
        ({"stepz": [4, 5]}, "no field 'stepz'"),
    ],
)
def test_refused(values: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Sweep.plan(FOX, axes(**values))


def test_files_have_different_names(tmp_path: Path) -> None:
    long = "word " * 60
    templates = [f"{long}a", f"{long}b", "a fox!", "a fox?", "狐狸", "\U0001f98a", "/etc", ".."]
    plan = Sweep.plan({}, [SweepAxis.of_texts("prompt", templates)])
    files = plan.files(tmp_path)
    assert len({str(file).lower() for file in files}) == len(templates)
    for file in files:
        assert file.parent == tmp_path and len(file.name.encode()) < 250
        file.touch()


def test_cells_that_are_there_are_kept(tmp_path: Path) -> None:
    plan = Sweep.plan(FOX, axes(steps=[1, 3]))
    files = save(plan, tmp_path, [0])
    drawn = [cell.is_drawn(file) for cell, file in zip(plan.cells, files, strict=True)]
    assert drawn == [True, False]
    for changed in ({"prompt": "a cat"}, {"model": "base"}):
        other = Sweep.plan({**FOX, **changed}, axes(steps=[1, 3]))
        with pytest.raises(RequestError, match="holds a picture of another request"):
            other.cells[0].is_drawn(files[0])


def test_a_sheet_with_a_gap(tmp_path: Path) -> None:
    plan = Sweep.plan(FOX, axes(seed=[*range(11)]))
    files = save(plan, tmp_path, [0, 1, 10])
    plan.save(tmp_path, files, "a fox", {files[0].name: 1.5})
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height // 2
    page = (tmp_path / "sheet.html").read_text("utf-8")
    assert page.count("<td>") == 12 and page.count("none yet") == 9
    data = json.loads((tmp_path / "sweep.json").read_text("utf-8"))
    assert len(data["cells"]) == 11 and data["axes"][0]["name"] == "seed"
    assert data["cells"][0]["file"] == "pictures/seed-0.png"
    assert Sweep.read_seconds(tmp_path) == {files[0].name: 1.5}
    (tmp_path / "sweep.json").write_text("[]")
    assert Sweep.read_seconds(tmp_path) == {}


def test_a_picture_that_is_damaged(tmp_path: Path) -> None:
    plan = Sweep.plan(FOX, axes(seed=[1, 2]))
    files = save(plan, tmp_path, [0, 1])
    files[0].write_bytes(files[0].read_bytes()[:60])
    with pytest.raises(RequestError, match="cannot be read"):
        plan.grid(files)
    with pytest.raises(RequestError, match="cannot be read"):
        plan.cells[0].is_drawn(files[0])


def test_large_pictures_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_zimage.sweep.PIXELS", 800)
    plan = Sweep.plan(FOX, axes(seed=[1, 2]))
    ((picture, _),) = plan.grid(save(plan, tmp_path, [0, 1]))
    assert picture is not None and max(picture.size) == 20
