"""Names of output files, and what is refused before the work."""

import os
from pathlib import Path

import numpy as np
import pytest

from mlx_zimage import RequestError
from mlx_zimage.cli.outputs import Outputs, read_array
from mlx_zimage.cli.parsing import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(output: str | None, *seeds: int | None, overwrite: bool = False) -> list[str]:
    planned = Outputs.plan(output, seeds, None, None, overwrite)
    return [str(file) for file in planned.pictures]


def test_default_names(here: Path) -> None:
    assert names(None, 5) == ["zimage-5.png"]
    assert names(None, None) == ["zimage-latents.png"]
    (here / "zimage-5.png").touch()
    (here / "zimage-5-2.png").symlink_to("nowhere")
    assert names(None, 5, 6) == ["zimage-5-3.png", "zimage-6.png"]
    assert names(None, 5, overwrite=True) == ["zimage-5.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_a_file_of_each_kind(suffix: str) -> None:
    assert names(f"a{suffix}", 1) == [f"a{suffix}"]
    assert names(f"a{suffix}", 1, 2) == [f"a-1{suffix}", f"a-2{suffix}"]


def test_folders(here: Path) -> None:
    assert names("pics/", 1, 2) == ["pics/zimage-1.png", "pics/zimage-2.png"]
    assert names("new/pics/a.png", 1) == ["new/pics/a.png"]
    assert os.listdir(here) == []  # they are made when a picture is saved
    (here / "there").mkdir()
    (here / "there" / "zimage-1.png").touch()
    assert names("there", 1) == ["there/zimage-1-2.png"]
    assert names(".", 1) == ["zimage-1.png"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "--output must name a file or a folder"),
        ("fox", "--output must end in one of .png, .jpg, .jpeg, .webp, .avif, or in / for a"),
    ],
)
def test_wrong_usage(output: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        names(output, 1)
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a.bmp", "must end in .png, .jpg, .jpeg, .webp or .avif, not 'a.bmp'"),
        ("taken.png", "taken.png exists already"),
        ("taken.png/a.png", "cannot write"),
        ("x" * 300 + ".png", "cannot write"),
        ("x" * 300 + "/a.png", "cannot write"),
        ("a\0.png", "cannot write"),
        ("/proc/a.png", "cannot write"),
        ("/proc/new/a.png", "cannot write"),
    ],
)
def test_refused(here: Path, output: str, message: str) -> None:
    (here / "taken.png").touch()
    with pytest.raises(RequestError) as refused:
        names(output, 1)
    assert message in str(refused.value) and len(str(refused.value)) < 400
    assert os.listdir(here) == ["taken.png"]


def test_arrays_are_of_one_picture(here: Path) -> None:
    planned = Outputs.plan("a.png", [1], Path("l.npy"), Path("e.npy"), False)
    assert (planned.latents, planned.embeds) == (Path("l.npy"), Path("e.npy"))
    with pytest.raises(UsageError, match="give one seed"):
        Outputs.plan("a.png", [1, 2], Path("l.npy"), None, False)
    with pytest.raises(RequestError, match=r"must end in \.npy"):
        Outputs.plan("a.png", [1], Path("l.png"), None, False)


def test_outputs_are_different_files(here: Path) -> None:
    (here / "link").symlink_to(here)
    for latents, embeds in (("a.npy", "a.npy"), ("a.npy", "./a.npy"), ("a.npy", "link/a.npy")):
        with pytest.raises(RequestError, match="are the same file"):
            Outputs.plan("a.png", [1], Path(latents), Path(embeds), True)


def test_arrays_that_cannot_be_read(here: Path) -> None:
    np.save("good.npy", np.ones(10))
    np.savez("many.npz", a=np.ones(3))
    np.save("pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    header = (here / "good.npy").read_bytes()
    large = header.replace(b"(10,), }" + b" " * 11, b"(9999999999999,), }")
    (here / "large.npy").write_bytes(large)
    assert read_array(None) is None
    array = read_array(Path("good.npy"))
    assert array is not None and array.sum() == 10
    for name in ("none.npy", "pickled.npy", "large.npy", "."):
        with pytest.raises(RequestError, match=r"cannot be read as a \.npy array"):
            read_array(Path(name))
    with pytest.raises(RequestError, match=r"must be one \.npy array"):
        read_array(Path("many.npz"))
