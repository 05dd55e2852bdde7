"""Output files: checked before the work, written completely or not at all."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_zimage import RequestError, read_metadata, save_png
from mlx_zimage.files import check_output, check_outputs, save_array, write_atomically

RED = Image.new("RGB", (8, 8), "red")


def test_never_over_a_file_unless_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_text("mine")
    with pytest.raises(RequestError, match="exists already"):
        check_output(file, ".png")
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
    [
        (".", "it is a folder; name a file"),
        ("a.jpg", "the output must end in .png, .json or .npy, not 'a.jpg'"),
        ("a", "the output must end in .png, .json or .npy, not 'a'"),
        ("file/a.png", "Not a directory"),
        ("file/folder/a.png", "Not a directory"),
        ("dangling/a.png", "cannot write"),
        ("pipe.png", "it is a device, not a file"),
        ("x" * 300 + ".png", "File name too long"),
        ("no/" + "x" * 300 + "/a.png", "File name too long"),
        ("no/" + "x" * 300 + ".png", "File name too long"),
        ("a\0b.png", "cannot write"),
    ],
)
def test_unwritable(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(RequestError, match=re.escape(message)) as error:
        check_output(tmp_path / name, (".png", ".json", ".npy"), overwrite=True)
    assert len(str(error.value)) < 400
    if name.endswith(".png"):
        with pytest.raises(RequestError, match="cannot write"):
            save_png(RED, tmp_path / name, {}, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "pipe.png"]


@pytest.mark.parametrize("value", [None, 5, "", b"a.png", ["a.png"]])
def test_outputs_that_are_no_path(value: Any) -> None:
    with pytest.raises(RequestError, match="the output must be a path, not"):
        check_output(value, ".png")


def test_checking_leaves_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "a.png", ".png")
    check_output(str(tmp_path / "no/folder/a.PNG"), [".png"])
    assert os.listdir(tmp_path) == []


def test_missing_folders_are_made(tmp_path: Path) -> None:
    save_png(RED, tmp_path / "new/folder/a.png", {})
    assert (tmp_path / "new/folder/a.png").is_file()


def test_a_broken_write_leaves_no_new_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    def write(_: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RequestError, match=r"cannot write .*a\.png: No space left on device"):
        write_atomically(tmp_path / "old/new/folder/a.png", write)
    assert os.listdir(tmp_path) == ["old"]
    assert os.listdir(tmp_path / "old") == []


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised by hand, as a test may run as root, for whom no folder is read-only."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RequestError, match=r"cannot write .*a\.png: Permission denied"):
        check_output(tmp_path / "a.png", ".png")
    with pytest.raises(RequestError, match="Permission denied"):
        save_png(RED, tmp_path / "new/a.png", {})
    assert os.listdir(tmp_path) == []


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands in for it, in a process of its own."""
    code = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image
from mlx_zimage import RequestError
from mlx_zimage.files import save_array
from mlx_zimage.images.files import save_picture

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
data = np.random.RandomState(0).randint(0, 255, (99, 99, 3), np.uint8)
for name in ("a.png", "a.jpg", "a.webp", "a.npy"):
    try:
        if name == "a.npy":
            save_array(data, folder / name)
        else:
            save_picture(Image.fromarray(data), folder / name, {})
    except RequestError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("cannot write") for line in lines)
    assert os.listdir(tmp_path) == []


def test_two_outputs_must_be_two_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    first = (tmp_path / "a.npy", ".npy")
    check_outputs([first, (tmp_path / "b.npy", ".npy"), (tmp_path / "a.png", [".png", ".jpg"])])
    for other in ("a.npy", "./x/../a.npy", "link/a.npy"):
        with pytest.raises(RequestError, match=r"are the same file; give each output a name"):
            check_outputs([first, (str(tmp_path / other), ".npy")])
    with pytest.raises(RequestError, match="must end in"):
        check_outputs([first, (tmp_path / "b.png", ".npy")])


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_permissions_follow_the_mask(tmp_path: Path) -> None:
    save_png(RED, tmp_path / "a.png", {})
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o666 & ~mask


def test_arrays(tmp_path: Path) -> None:
    save_array(mx.ones((2,), mx.bfloat16), str(tmp_path / "b.npy"))
    assert np.load(tmp_path / "b.npy").dtype == np.float32
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
