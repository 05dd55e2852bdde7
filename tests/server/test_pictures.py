"""Pictures that clients send: bombs, other formats, paths."""

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from mlx_zimage.server.failures import Refusal
from mlx_zimage.server.pictures import MAX_PIXELS, MAX_SIDE, check_fields, check_picture

from .conftest import SMALL, Running


def encoded(kind: str, size: tuple[int, int] = (32, 16), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, kind, **options)
    return file.getvalue()


def url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def huge_png(width: int, height: int) -> bytes:
    """Build a PNG that declares a size, and holds a few bytes that would unpack to all of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000_000, 9)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animation() -> bytes:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_known_formats(kind: str) -> None:
    check_picture(encoded(kind), "image")


BAD = {
    "empty": b"",
    "text": b"hello",
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "pickle": b"\x80\x04\x95",
    "gif": encoded("GIF"),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "ico": encoded("ICO"),
    "eps": encoded("EPS"),
    "pdf": encoded("PDF"),
    "head alone": encoded("PNG")[:20],
    "many pixels": huge_png(30_000, 30_000),
    "a long side": huge_png(MAX_SIDE + 1, 1),
    "just too many": huge_png(8_001, 8_000),
    "animation": animation(),
}


@pytest.mark.parametrize("name", BAD)
def test_others_are_refused_before_they_are_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(Refusal) as refused:
        check_picture(BAD[name], "image")
    assert (refused.value.status, refused.value.param) == (400, "image")
    assert MAX_PIXELS < 8_001 * 8_000


@pytest.mark.parametrize("name", BAD)
def test_the_server_refuses_them(server: Running, name: str) -> None:
    for path in ("/api/jobs", "/api/estimate"):
        answer = server.ask("POST", path, {**SMALL, "image": url(BAD[name])})
        assert (answer.status, answer.json["error"]["param"]) == (400, "image")
    answer = server.ask("POST", "/api/metadata", BAD[name], {"Content-Type": "image/png"})
    assert answer.status == 400
    assert server.ask("GET", "/health").status == 200


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/x.png",
        "~/x.png",
        "",
        "data:",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:image/png;base64,!!!!",
        5,
        True,
        {},
        {"path": "/etc/passwd"},
        ["/etc/passwd"],
        [url(encoded("PNG")), "/etc/passwd"],
        [[url(encoded("PNG"))]],
    ],
)
def test_nothing_but_data_urls(server: Running, value: Any) -> None:
    for name in ("image", "mask"):
        with pytest.raises(Refusal, match=name):
            check_fields({"prompt": "x", name: value})
        answer = server.ask("POST", "/api/jobs", {**SMALL, name: value})
        assert (answer.status, answer.json["error"]["param"]) == (400, name)


def test_a_truncated_picture_is_told(server: Running) -> None:
    whole = encoded("PNG", (200, 200))
    answer = server.ask("POST", "/api/jobs", {**SMALL, "image": url(whole[: len(whole) // 2])})
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith("image")


def test_large_texts_in_a_picture(server: Running) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for number in range(3):
        info.add_itxt(f"x{number}", "\0" * 30_000_000, zip=True)  # unpacks to far more than it is
    data = encoded("PNG", pnginfo=info)
    assert len(data) < 200_000
    answer = server.ask("POST", "/api/metadata", data, {"Content-Type": "image/png"})
    assert answer.status == 400
    assert server.draw()["state"] == "done"


@pytest.mark.parametrize(
    "array",
    [
        {"shape": [1, 16, 8, 8]},
        {"float32": "AAAA"},
        {"shape": [1, 16, 1 << 40, 8], "float32": "AAAA"},
        {"shape": [-1, 16, 8, 8], "float32": "AAAA"},
        {"shape": "x", "float32": "AAAA"},
        {"shape": [1, 1, 1, 1], "float32": 5},
        {"shape": [1, 1, 1, 1], "float32": "AAAA", "more": 1},
        "/etc/passwd",
        [1, 2],
    ],
)
def test_arrays_that_are_none(server: Running, array: Any) -> None:
    answer = server.ask("POST", "/api/jobs", {**SMALL, "latents": array})
    assert answer.status == 400
    assert answer.json["error"]["message"]
