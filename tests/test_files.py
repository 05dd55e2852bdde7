"""Pictures, what they remember, and files that are whole or not there."""

import os
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Request, RequestError, read_metadata, save_png
from mlx_zimage.files import check_writable, save_array, write_atomically
from mlx_zimage.images.pixels import to_image

RED = Image.new("RGB", (8, 8), "red")


def test_rounding_is_numpys() -> None:
    """Halves go to the even neighbour, out of range is cut."""
    levels = np.array([-3.0, -1.0, 0.0, 1.0, 9.0, (0.5 / 255) * 2 - 1, (1.5 / 255) * 2 - 1])
    image = to_image(mx.array(np.tile(levels[:, None], (1, 3))[None].astype(np.float32)))
    assert np.asarray(image)[0, :5, 0].tolist() == [0, 0, 128, 255, 255]
    assert image.mode == "RGB"


def test_metadata_comes_back(tmp_path: Path) -> None:
    data = {"request": {"prompt": "狐狸 🦊\n\"'\\"}, "long": "x" * 100_000}
    save_png(RED, tmp_path / "a.png", data)
    assert read_metadata(tmp_path / "a.png") == data
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(RED))


def test_arrays_fit_in_the_metadata(tmp_path: Path) -> None:
    """1024 x 1024 latents and a prompt of 512 tokens at the real width, in base64."""
    generator = np.random.RandomState(0)
    request = Request(
        prompt_embeds=(generator.standard_normal((512, 2560)),),
        latents=generator.standard_normal((1, 16, 128, 128)),
    )
    save_png(RED, tmp_path / "a.png", {"request": request.to_dict()})
    assert Request.from_dict(read_metadata(tmp_path / "a.png")["request"]) == request


def test_pictures_without_a_request(tmp_path: Path) -> None:
    RED.save(tmp_path / "plain.png")
    with pytest.raises(RequestError, match="holds no request"):
        read_metadata(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(RequestError, match="cannot be read as a picture"):
        read_metadata(tmp_path / "text.png")
    with pytest.raises(RequestError, match="cannot be read as a picture"):
        read_metadata(tmp_path / "none.png")


def test_never_over_a_file_unless_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_text("mine")
    with pytest.raises(RequestError, match="exists already"):
        check_writable(file, ".png")
    with pytest.raises(RequestError, match="exists already"):
        save_png(RED, file, {})
    assert file.read_text() == "mine"
    save_png(RED, file, {}, overwrite=True)
    assert read_metadata(file) == {}
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.png"

    def write(out: BinaryIO) -> None:
        out.write(b"ours")
        file.write_text("theirs")

    with pytest.raises(RequestError, match="exists already"):
        write_atomically(file, write)
    assert file.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a.png"]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    save_png(RED, tmp_path / "a.png", {})
    with pytest.raises(RequestError, match="exists already"):
        save_png(RED, tmp_path / "a.png", {})
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_broken_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def write(out: BinaryIO) -> None:
        out.write(b"half")
        raise error

    expected = RequestError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if isinstance(error, OSError) else None):
        write_atomically(tmp_path / "a.png", write)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/folder/a.png", "cannot write"), (".", "it is a folder"), ("a.jpg", "must end in .png")],
)
def test_unwritable(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_writable(tmp_path / name, ".png")
    assert os.listdir(tmp_path) == []


def test_names_that_no_file_system_takes(tmp_path: Path) -> None:
    for name in ("x" * 300 + ".png", "a\0b.png"):
        with pytest.raises(RequestError, match="cannot write"):
            save_png(RED, tmp_path / name, {})
        with pytest.raises(RequestError, match="cannot write"):
            check_writable(tmp_path / name, ".png")


def test_checking_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.png", ".png")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_permissions_follow_the_mask(tmp_path: Path) -> None:
    save_png(RED, tmp_path / "a.png", {})
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o666 & ~mask


def test_arrays(tmp_path: Path) -> None:
    save_array(np.arange(4), tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [0, 1, 2, 3]


def test_many_threads_want_one_name(tmp_path: Path) -> None:
    refused: list[RequestError] = []

    def save() -> None:
        try:
            save_png(RED, tmp_path / "a.png", {})
        except RequestError as error:
            refused.append(error)

    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert os.listdir(tmp_path) == ["a.png"]
