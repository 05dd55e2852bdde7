"""Picture files of each format, and the metadata that they give back."""

import io
import os
import struct
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from mlx_zimage import Request, RequestError
from mlx_zimage.images.files import PICTURES, read_metadata, save_picture, save_png

NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 255, (32, 48, 3), np.uint8))
SMOOTH = Image.linear_gradient("L").resize((48, 32)).convert("RGB")


@pytest.fixture(params=PICTURES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"a{request.param}"


def test_metadata_comes_back(file: Path) -> None:
    data = {"request": {"prompt": "狐狸 🦊\n\"'\\"}, "long": "x" * 100_000}
    save_picture(SMOOTH, file, data)
    assert read_metadata(file) == data


def test_pixels_come_back(file: Path) -> None:
    save_picture(SMOOTH, file, {"prompt": "x" * 200_000})
    with Image.open(file) as image:
        assert image.format == {".png": "PNG", ".webp": "WEBP", ".avif": "AVIF"}.get(
            file.suffix, "JPEG"
        )
        distance = np.abs(np.asarray(image, int) - np.asarray(SMOOTH, int)).max()
    assert distance <= (0 if file.suffix == ".png" else 4)


def test_quality_keeps_colours_at_full_size(tmp_path: Path) -> None:
    save_picture(NOISE, tmp_path / "a.JPG", {})
    with Image.open(tmp_path / "a.JPG") as image:
        assert np.abs(np.asarray(image, int) - np.asarray(NOISE, int)).mean() < 5


def test_arrays_fit_in_the_metadata(file: Path) -> None:
    """1024 x 1024 latents and a prompt of 512 tokens at the real width: 8 MB in base64."""
    generator = np.random.RandomState(0)
    request = Request(
        prompt_embeds=(generator.standard_normal((512, 2560)),),
        latents=generator.standard_normal((1, 16, 128, 128)),
    )
    save_picture(SMOOTH, file, {"request": request.to_dict()})
    assert Request.from_dict(read_metadata(file)["request"]) == request


def test_names_that_are_no_unicode(file: Path) -> None:
    """A folder's name may hold such bytes, and the picture is already made by then."""
    save_picture(SMOOTH, file, {"model": "\udcff"})
    assert read_metadata(file) == {"model": "\udcff"}


def test_any_mapping_is_taken(file: Path) -> None:
    save_picture(SMOOTH, file, types.MappingProxyType({"index": 1}))
    assert read_metadata(file) == {"index": 1}


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": np.ones(2)}, 5, {(1, 2): 3}])
def test_metadata_must_be_json(file: Path, metadata: Any) -> None:
    with pytest.raises(RequestError, match="metadata must be an object for JSON"):
        save_picture(SMOOTH, file, metadata)
    assert os.listdir(file.parent) == []


def test_other_comments_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    save_picture(SMOOTH, file, {"index": 1})
    data = file.read_bytes()
    file.write_bytes(data[:20] + b"\xff\xfe\x00\x07other" + data[20:])
    assert read_metadata(file) == {"index": 1}
    SMOOTH.save(file, comment="other")
    with pytest.raises(RequestError, match="holds no request"):
        read_metadata(file)


def test_never_over_a_file_unless_asked(file: Path) -> None:
    file.write_text("mine")
    with pytest.raises(RequestError, match="exists already"):
        save_picture(SMOOTH, file, {})
    assert file.read_text() == "mine"
    save_picture(SMOOTH, file, {}, overwrite=True)
    assert read_metadata(file) == {}


@pytest.mark.parametrize("name", ["a.gif", "a", "png", ".png", "a.png.bak"])
def test_other_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        RequestError, match=r"must end in \.png, \.jpg, \.jpeg, \.webp or \.avif, not '"
    ):
        save_picture(SMOOTH, tmp_path / name, {})


def test_png_under_any_name(tmp_path: Path) -> None:
    save_png(SMOOTH, tmp_path / "a", {"index": 1})
    assert read_metadata(tmp_path / "a") == {"index": 1}


@pytest.mark.parametrize("image", ["a.png", None, np.ones((2, 2, 3))])
def test_only_pictures_are_saved(tmp_path: Path, image: Any) -> None:
    with pytest.raises(RequestError, match="the picture must be a PIL image, not"):
        save_picture(image, tmp_path / "a.png", {})


def test_modes_that_a_format_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot write mode RGBA as JPEG"):
        save_picture(Image.new("RGBA", (8, 8)), tmp_path / "a.jpg", {})
    assert os.listdir(tmp_path) == []


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(*chunks: bytes, size: int = 1) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"\x89PNG\r\n\x1a\n" + b"".join((header, *chunks, pixels, _chunk(b"IEND", b"")))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xfe",
        b"\xff\xd8\xff\xfe\x00\x12" + b'{"mlx_zimage": {',
        b"RIFF\x04\x00\x00\x00WEBP",
        _png()[:-20],
        _png(size=100_000),
        _png(_chunk(b"tEXt", b"mlx_zimage\0{")),
        _png(_chunk(b"tEXt", b"mlx_zimage\0" + b"[" * 100_000)),
        _png(_chunk(b"tEXt", b"mlx_zimage\0[1]")),
        _png(_chunk(b"zTXt", b"mlx_zimage\0\0" + zlib.compress(bytes(2**22)))),
        _png(_chunk(b"zTXt", b"mlx_zimage\0\0broken")),
        _png(_chunk(b"other", b"")),
    ],
)
def test_files_that_hold_no_request(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / ("x" * 200 + ".png")
    file.write_bytes(content)
    with pytest.raises(
        RequestError, match=r"cannot be read as a picture|holds no request"
    ) as error:
        read_metadata(file)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_an_open_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", {"request": {"prompt": "x"}})
    file = io.BytesIO((tmp_path / "a.png").read_bytes())
    file.seek(5)
    assert read_metadata(file) == read_metadata(tmp_path / "a.png")
    with pytest.raises(RequestError, match="the picture cannot be read as a picture"):
        read_metadata(io.BytesIO(b"no picture"))


def test_open_files_that_cannot_be_read(tmp_path: Path) -> None:
    closed = io.BytesIO(_png())
    closed.close()
    with pytest.raises(RequestError, match="the picture cannot be read as a picture"):
        read_metadata(closed)
    receiver, sender = os.pipe()
    os.close(sender)
    with (
        os.fdopen(receiver, "rb") as stream,
        pytest.raises(RequestError, match="the picture cannot be read as a picture"),
    ):
        read_metadata(stream)


def test_an_open_file_stays_open() -> None:
    file = io.BytesIO()
    info = PngInfo()
    info.add_itxt("mlx_zimage", "{}")
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    assert (read_metadata(file), read_metadata(file)) == ({}, {})
    assert not file.closed


def test_pixels_are_not_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of pictures is read by its headers."""
    save_picture(SMOOTH, tmp_path / "a.png", {"request": {"prompt": "x"}})
    monkeypatch.setattr(PngImageFile, "load", None)
    assert read_metadata(tmp_path / "a.png") == {"request": {"prompt": "x"}}


def test_a_text_behind_the_pixels(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt("mlx_zimage", '{"index": 3}')
    SMOOTH.save(tmp_path / "a.png", pnginfo=info)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"iTXt") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    assert read_metadata(io.BytesIO(moved)) == {"index": 3}


def test_paths_that_hold_no_picture(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path, "a\0b.png", "x" * 6000):
        with pytest.raises(RequestError, match="cannot be read as a picture") as error:
            read_metadata(path)
        assert len(str(error.value)) < 500
    for value in (None, 5, b"a.png", ""):
        with pytest.raises(RequestError, match="the picture must be a path, not"):
            read_metadata(value)  # type: ignore[arg-type]


def test_pictures_of_other_programs(file: Path) -> None:
    SMOOTH.save(file)
    with pytest.raises(RequestError, match="holds no request"):
        read_metadata(file)
