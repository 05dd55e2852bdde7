"""The history: what is kept, found, listed and removed."""

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlx_zimage import RequestError, read_metadata
from mlx_zimage.server.failures import Refusal
from mlx_zimage.server.history import History

PICTURE = Image.effect_noise((48, 32), 90).convert("RGB")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    opened = History(tmp_path / "pictures")
    opened.open()
    yield opened
    opened.close()


def keep(history: History, prompt: str, seed: int = 1, **request: Any) -> dict[str, Any]:
    fields = {"prompt": prompt, "seed": seed, **request}
    metadata = {"request": fields, "index": 0, "model": "demo"}
    return history.add(PICTURE, metadata, job="0" * 16, index=0, kind="picture")


def test_a_picture_is_listed_and_opens(history: History, tmp_path: Path) -> None:
    image = keep(history, "a red circle", seed=7)
    images, total = history.list()
    assert (images, total) == ([image], 1)
    assert (image["prompt"], image["seed"], image["model"]) == ("a red circle", 7, "demo")
    assert (image["width"], image["height"]) == (48, 32)
    with Image.open(io.BytesIO(history.bytes_of(image["id"]))) as opened:
        assert opened.tobytes() == PICTURE.tobytes()
    with Image.open(io.BytesIO(history.thumbnail(image["id"]))) as small:
        assert (small.format, small.size) == ("WEBP", (48, 32))
    path = history.path_of(image["id"])
    assert "a-red-circle" in path.name
    assert read_metadata(path)["request"]["seed"] == 7
    name = history.name_for_download(image["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-a-red-circle-7\.png", name)


def test_it_is_there_after_a_restart(history: History, tmp_path: Path) -> None:
    kept = [keep(history, f"picture {number}", seed=number) for number in range(3)]
    before, _ = history.list()
    history.close()
    again = History(tmp_path / "pictures")
    again.open()
    try:
        assert again.list() == (before, 3)
        assert {image["id"] for image in before} == {image["id"] for image in kept}
    finally:
        again.close()


def test_pages(history: History) -> None:
    for number in range(5):
        keep(history, "x", seed=number)
    images, total = history.list(limit=2)
    assert total == 5
    more, _ = history.list(before=images[-1]["id"], limit=10)
    everything, _ = history.list()
    assert [*images, *more] == everything
    assert [image["created"] for image in everything] == sorted(
        (image["created"] for image in everything), reverse=True
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 3),
        ("RED", 1),
        ("circle red", 1),
        ("红色", 1),
        ("4242", 1),
        ("blurry", 1),
        ("demo", 3),
        ("fox", 0),
        ("<b>", 0),
    ],
)
def test_search(history: History, query: str, found: int) -> None:
    keep(history, "a red circle", seed=4242)
    keep(history, "蓝色背景上的红色圆形")
    keep(history, "a star", negative_prompt="blurry")
    images, total = history.list(query=query)
    assert (len(images), total) == (found, found)


def test_big_fields_are_named_and_given_for_one(history: History) -> None:
    url = "data:image/png;base64,AAAA"
    image = keep(history, "x", image=url)
    assert image["large"] == ["image"]
    assert "image" not in image["request"]
    assert history.entry(image["id"])["request"]["image"] == url


def test_what_a_person_does_to_the_folder(history: History, tmp_path: Path) -> None:
    gone, damaged, copied = (keep(history, name) for name in ("gone", "damaged", "copied"))
    history.path_of(gone["id"]).unlink()
    history.path_of(damaged["id"]).write_bytes(b"\x89PNG and then nothing")
    (tmp_path / "pictures" / ".thumbnails" / f"{damaged['id']}.webp").unlink()
    folder = tmp_path / "pictures"
    other = folder / "holiday.png"
    PICTURE.save(other)
    os.symlink(other, folder / f"20260101-000000-x-{'a' * 16}.png")
    images, total = history.list()
    assert total == 2  # the damaged one stays, as nothing of a person's is hidden
    assert copied in images
    with pytest.raises(Refusal):
        history.bytes_of(gone["id"])
    with pytest.raises(Refusal):
        history.thumbnail(damaged["id"])
    with pytest.raises(Refusal):
        history.path_of("a" * 16)


@pytest.mark.parametrize(
    "id", ["", "..", "../x", "a" * 15, "A" * 16, "a" * 16, "a" * 16 + "\n", "%2e%2e", "\0"]
)
def test_strange_ids_are_not_found(history: History, id: str) -> None:
    for ask in (history.entry, history.path_of, history.thumbnail, history.remove):
        with pytest.raises(Refusal) as refused:
            ask(id)
        assert refused.value.status == 404


def test_removing(history: History, tmp_path: Path) -> None:
    image = keep(history, "x")
    history.remove(image["id"])
    assert history.list() == ([], 0)
    assert [path for path in (tmp_path / "pictures").rglob("*") if path.suffix] == []


def test_thumbnails_are_made_again(history: History, tmp_path: Path) -> None:
    image = keep(history, "x")
    file = tmp_path / "pictures" / ".thumbnails" / f"{image['id']}.webp"
    whole = file.read_bytes()
    for content in (b"", whole[:20], b"not a picture"):
        file.write_bytes(content)
        assert history.thumbnail(image["id"]) == whole
    file.unlink()
    assert history.thumbnail(image["id"]) == whole
    assert file.exists()


def test_leftovers_of_a_killed_server_are_removed(history: History, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    image = keep(history, "x")
    history.close()
    ours = [folder / f".{'0' * 16}.part", folder / ".thumbnails" / f".{'0' * 16}-{'0' * 8}"]
    other = folder / ".something.part"
    for file in (*ours, other):
        file.write_bytes(b"half")
    again = History(folder)
    again.open()
    again.close()
    assert [file.exists() for file in (*ours, other)] == [False, False, True]
    assert again.list()[0] == [image]


def test_a_second_server_in_the_folder_is_refused(history: History, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="another server keeps its pictures in"):
        History(tmp_path / "pictures").open()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="cannot be made"):
        History(tmp_path / "file" / "pictures").open()


def test_a_full_disk_is_told(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(Refusal, match="cannot be saved: No space left on device") as refused:
        keep(history, "x")
    assert refused.value.status == 507
    monkeypatch.undo()
    assert history.list() == ([], 0)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == [".lock"]


def test_names_in_other_scripts_and_long_ones(history: History) -> None:
    for prompt in ("红色圆形", "x" * 5000, "../../etc/passwd", "a/b\\c:d*e?", "con", "🦊", ""):
        image = keep(history, prompt)
        assert history.path_of(image["id"]).parent == history.path_of(image["id"]).parent.resolve()
        assert len(history.path_of(image["id"]).name.encode()) < 255
        assert image["prompt"] == prompt


def test_what_comes_after_a_picture_that_is_gone(history: History) -> None:
    first, second, third = (keep(history, name) for name in ("first", "second", "third"))
    history.remove(second["id"])
    images, total = history.list(before=second["id"])
    assert ([image["id"] for image in images], total) == ([first["id"]], 2)
    assert history.list()[0] == [third, first]
    with pytest.raises(Refusal):
        history.list(before="0" * 16)


@pytest.mark.parametrize(
    "metadata",
    [
        {"request": {"prompt": float("nan"), "seed": float("inf")}},
        {"request": {"prompt": ["a"], "seed": [1]}, "index": 5},
        {"request": {"prompt": "x" * 100_000}},
        {"request": 5, "server": 5, "loras": 5, "model": {}, "index": "x"},
        {"request": {"prompt": "\ud800"}, "server": {"index": -1, "kind": "<b>", "created": -5.0}},
        {"loras": ["x", {"source": {}}]},
        [1],
    ],
)
def test_whatever_a_file_says_the_list_is_strict_json(
    history: History, tmp_path: Path, metadata: Any
) -> None:
    info = PngInfo()
    info.add_itxt("mlx_zimage", json.dumps(metadata))
    PICTURE.save(tmp_path / "pictures" / f"20260101-000000-x-{'a' * 16}.png", pnginfo=info)
    (image,), total = history.list()
    assert total == 1
    assert len(json.dumps(image, allow_nan=False)) < 30_000
    assert image["kind"] == "picture"
    json.dumps(history.entry("a" * 16), allow_nan=False)
    assert history.thumbnail("a" * 16)


def test_a_copy_keeps_its_time_and_is_listed_once(history: History, tmp_path: Path) -> None:
    image = keep(history, "x")
    folder = tmp_path / "pictures"
    path = history.path_of(image["id"])
    data = path.read_bytes()
    path.unlink()
    for words in ("b", "a"):
        (folder / f"20200101-000000-{words}-{image['id']}.png").write_bytes(data)
    (again,), total = history.list()
    assert (total, again) == (1, image)


def test_a_folder_that_is_away_and_comes_back(history: History, tmp_path: Path) -> None:
    image = keep(history, "x")
    folder, away = tmp_path / "pictures", tmp_path / "away"
    folder.rename(away)
    assert history.list() == ([], 0)
    with pytest.raises(Refusal):
        history.bytes_of(image["id"])
    away.rename(folder)
    assert history.list() == ([image], 1)


def test_a_guest_leaves_what_is_not_finished_to_others(history: History, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    half = folder / f".{'0' * 16}.part"
    half.write_bytes(b"half")
    guest = History(folder)
    guest.open(alone=False)
    image = keep(guest, "x")
    assert half.exists()
    assert history.list() == ([image], 1)
    history.close()
    again = History(folder)
    again.open()  # a guest is there: the half may be its own
    again.close()
    assert half.exists()
    guest.close()
    last = History(folder)
    last.open()
    last.close()
    assert not half.exists()


def test_thumbnails_of_pictures_that_are_gone_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    guest = History(folder)
    guest.open(alone=False)  # it removes none, while the file is made here
    image = keep(guest, "x")
    guest.close()
    thumbnails = folder / ".thumbnails"
    shutil.copy(thumbnails / f"{image['id']}.webp", thumbnails / f"{'b' * 16}.webp")
    again = History(folder)
    again._begin(True)
    assert [path.name for path in thumbnails.iterdir()] == [f"{image['id']}.webp"]


def test_a_picture_that_was_painted_over_is_shown_anew(history: History) -> None:
    image = keep(history, "x")
    before = history.thumbnail(image["id"])
    path = history.path_of(image["id"])
    Image.new("RGB", (48, 32), "red").save(path)
    later = path.stat().st_mtime + 10
    os.utime(path, (later, later))
    assert history.thumbnail(image["id"]) != before
