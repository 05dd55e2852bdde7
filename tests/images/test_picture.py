"""Pictures from every form that people have them in."""

import base64
import contextlib
import io
import os
import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image, ImageCms

from mlx_zimage import Request, RequestError
from mlx_zimage.images import picture
from mlx_zimage.images.canvas import over_white
from mlx_zimage.images.picture import Picture

from . import profiles

RGB = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
TURNS = {  # what was done to the picture before it was stored
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""The stored pixels of an upright picture, for each orientation of EXIF."""


def read(value: Any) -> np.ndarray:
    return Picture.read("image", value).pixels


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """Read a file's bytes by way of a data URL."""
    return read("data:image/x;base64," + base64.b64encode(data).decode())


def refused(value: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(value)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 400 and text.startswith("image")
    return text


def refused_bytes(data: bytes, tmp_path: Path) -> str:
    (tmp_path / "a").write_bytes(data)
    return refused(tmp_path / "a")


def test_each_form_gives_the_same(tmp_path: Path) -> None:
    file = tmp_path / "狐狸 a.png"
    Image.fromarray(RGB).save(file)
    once = Picture.read("image", file)
    for value in (str(file), Image.fromarray(RGB), RGB, mx.array(RGB), once, once.to_data_url()):
        assert np.array_equal(read(value), RGB)
    with Image.open(file) as image:
        assert np.array_equal(read(image), RGB)
    assert np.array_equal(read(RGB.tolist() and np.asfortranarray(RGB)[::-1][::-1]), RGB)
    assert np.array_equal(read(GREY), np.stack([GREY] * 3, axis=-1))
    assert np.array_equal(read(GREY[..., None]), read(GREY))
    assert np.array_equal(read(GREY > 99), read((GREY > 99).astype(np.uint8) * 255))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(read("~/a.png"), RGB)
    assert "cannot be read" in refused("~nobody-of-this-name/a.png")


def test_a_picture_does_not_change() -> None:
    pixels = RGB.copy()
    kept = Picture.read("image", pixels)
    pixels[:] = 0
    for other in (kept, pickle.loads(pickle.dumps(kept)), Picture.read("x", kept.to_data_url())):
        assert other == kept and hash(other) == hash(kept)
        with pytest.raises(ValueError, match="read-only"):
            other.pixels[0] = 1
    assert repr(kept) == "<9x6 RGB>" and kept.size == (9, 6)
    assert kept != Picture(RGB[:3]) and kept != 1


def test_json_keeps_every_pixel() -> None:
    rgba = np.dstack([RGB, RGB[..., 0]])
    request = Request("x", image=[RGB], mask=rgba)
    assert Request.from_json(request.to_json()) == request
    assert Request.from_json(request.to_json()).mask == request.mask
    assert "image=(<9x6 RGB>,), mask=<9x6 RGBA>" in repr(request)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation(orientation: int, format: str) -> None:
    upright = np.kron(RGB[:2, :3], np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](upright)))
    lossy = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = saved(stored, format, exif=exif, **lossy.get(format, {}))
    distance = np.abs(decoded(data).astype(int) - upright).max()
    assert distance <= (6 if format == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x"])
def test_broken_exif_is_ignored(exif: bytes) -> None:
    data = saved(Image.fromarray(RGB), "PNG", exif=exif)
    assert np.array_equal(decoded(data), RGB)


def test_transparency_stays_and_lies_over_white() -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    assert decoded(saved(Image.fromarray(rgba), "PNG")).shape == (6, 9, 3)  # all opaque
    assert read(rgba).shape == (6, 9, 3)
    rgba[:3, :, 3], rgba[3, :, 3] = 0, 128
    for value in (rgba, Image.fromarray(rgba)):
        kept = Picture.read("image", value)
        assert kept.has_alpha and np.array_equal(kept.pixels, rgba)
        flat = np.asarray(over_white(kept))
        assert (flat[:3] == 255).all() and np.array_equal(flat[4:], RGB[4:])
        mixed = (RGB[3] * (128 / 255) + 255 * (127 / 255)).round()
        assert np.abs(flat[3].astype(float) - mixed).max() <= 1
    assert np.array_equal(decoded(saved(Image.fromarray(rgba), "PNG")), rgba)
    assert np.array_equal(
        decoded(saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)), rgba
    )


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied(mode: str) -> None:
    alpha = np.full((4, 4), 128, np.uint8)
    alpha[0] = 0
    bands = [np.full((4, 4), 100, np.uint8)] * (3 if mode == "RGBa" else 1)
    straight = Image.fromarray(np.dstack([*bands, alpha]))
    pixels = read(straight.convert(mode))
    assert pixels.shape == (4, 4, 4) and np.array_equal(pixels[..., 3], alpha)
    assert np.abs(pixels[1:, :, :3].astype(int) - 100).max() <= 1


def test_palette() -> None:
    indexes = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    colours = np.array([[255, 0, 0], [0, 200, 0], [9, 8, 7]], np.uint8)
    image = Image.fromarray(indexes).convert("P")
    image.putpalette(colours.tobytes())
    assert np.array_equal(decoded(saved(image, "PNG")), colours[indexes])
    assert np.array_equal(read(image), colours[indexes])
    for transparency, alphas in ((1, [255, 0, 255]), (bytes([0, 128, 255]), [0, 128, 255])):
        pixels = decoded(saved(image, "PNG", transparency=transparency))
        assert np.array_equal(pixels[..., 3], np.array(alphas)[indexes])
        assert np.array_equal(pixels[..., :3], colours[indexes])
    gif = decoded(saved(image, "GIF", transparency=1))
    assert np.array_equal(gif[..., 3], np.array([255, 0, 255])[indexes])
    image.putalpha(Image.fromarray(indexes * 100))
    assert image.mode == "PA"
    assert np.array_equal(read(image), np.dstack([colours[indexes], indexes * 100]))


def test_grey_and_one_bit() -> None:
    image = Image.fromarray(GREY)
    for value in (image, saved(image, "PNG"), saved(image, "TIFF"), saved(image, "BMP")):
        pixels = decoded(value) if isinstance(value, bytes) else read(value)
        assert np.array_equal(pixels, np.stack([GREY] * 3, axis=-1))
    bits = Image.fromarray(GREY > 99)
    assert bits.mode == "1"
    assert np.array_equal(decoded(saved(bits, "PNG")), read(GREY > 99))
    two = np.dstack([GREY, GREY[::-1]])
    assert np.array_equal(decoded(profiles.png(two, profiles.GREY_ALPHA))[..., [0, 3]], two)
    key = decoded(profiles.png(GREY, profiles.GREY, (b"tRNS", struct.pack(">H", 7))))
    assert np.array_equal(key[..., 3] == 0, GREY == 7)
    key = decoded(profiles.png(RGB, profiles.RGB, (b"tRNS", struct.pack(">3H", *RGB[2, 3]))))
    assert key[2, 3, 3] == 0 and (key[..., 3] == 0).sum() == 1


def test_sixteen_bits() -> None:
    wide = (np.arange(65536, dtype=np.uint32).reshape(256, 256)).astype(np.uint16)
    rounded = (wide / 257).round().astype(np.uint8)
    assert np.array_equal(decoded(profiles.png(wide, profiles.GREY))[..., 1], rounded)
    tiff = Image.fromarray(wide)
    assert tiff.mode.startswith("I;16")
    assert np.array_equal(decoded(saved(tiff, "TIFF"))[..., 0], rounded)
    big = io.BytesIO()  # big-endian
    Image.frombytes("I;16B", (256, 256), wide.astype(">u2").tobytes()).save(big, "TIFF")
    assert np.array_equal(decoded(big.getvalue())[..., 0], rounded)
    assert np.array_equal(
        decoded(b"P5 256 256 65535\n" + wide.astype(">u2").tobytes())[..., 2], rounded
    )
    coloured = np.stack([wide, wide[::-1], wide.T], axis=-1)
    distance = decoded(profiles.png(coloured, profiles.RGB)).astype(int) - coloured / 257
    assert np.abs(distance).max() <= 1.01
    alpha = decoded(profiles.png(np.dstack([coloured, wide]), profiles.RGBA))
    assert alpha.shape == (256, 256, 4) and np.abs(alpha[..., 3] - wide / 257).max() <= 1.01
    key = decoded(profiles.png(wide, profiles.GREY, (b"tRNS", struct.pack(">H", 300))))
    assert (key[..., 3] == 0).sum() == 1 and key[1, 44, 3] == 0
    assert np.array_equal(read(Image.fromarray(GREY).convert("I")), read(GREY))  # 8 bits in 32


def test_floats() -> None:
    unit = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(read(Image.fromarray(unit))[..., 0], GREY)
    assert np.array_equal(decoded(saved(Image.fromarray(unit), "TIFF"))[..., 0], GREY)
    assert np.array_equal(read(Image.fromarray(unit * 255))[..., 0], GREY)
    broken = unit.copy()
    broken[0, :4] = np.nan, np.inf, -np.inf, 3.5  # a highlight above 1 does not darken the rest
    pixels = read(Image.fromarray(broken))[..., 0]
    assert pixels[0, :4].tolist() == [0, 255, 0, 255]
    assert np.array_equal(pixels.ravel()[4:], GREY.ravel()[4:])


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX"])
def test_other_modes(mode: str) -> None:
    smooth = Image.linear_gradient("L").convert("RGB").convert(mode)
    assert np.abs(read(smooth).astype(int) - np.asarray(smooth.convert("RGB"))).max() <= 1


def test_lab() -> None:
    profile = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    muted = RGB // 4 + np.uint8(90)  # of which 8 bits of Lab hold enough
    lab = ImageCms.profileToProfile(
        Image.fromarray(muted), profile[1], profile[0], outputMode="LAB"
    )
    assert lab is not None
    assert np.abs(read(lab).astype(int) - muted).max() <= 4
    assert np.abs(decoded(saved(lab, "TIFF")).astype(int) - muted).max() <= 4


def _through_cms(pixels: Image.Image, profile: bytes) -> np.ndarray:
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(pixels, source, target, outputMode="RGB"), int)


@pytest.mark.parametrize("primaries", [profiles.DISPLAY_P3, profiles.ADOBE_RGB])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_wide_colours(primaries: Any, format: str) -> None:
    profile = profiles.rgb_profile(primaries, 2.19921875)
    inner = np.kron(RGB // 2 + 60, np.ones((8, 8, 1), np.uint8)).astype(np.uint8)
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = saved(Image.fromarray(inner), format, icc_profile=profile, **lossless.get(format, {}))
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = decoded(data).astype(int)
    assert np.abs(pixels - _through_cms(stored, profile)).max() == 0
    linear = (np.asarray(stored) / 255) ** 2.19921875 @ profiles.matrix(primaries).T
    linear = np.clip(linear @ np.linalg.inv(profiles.matrix(profiles.SRGB)).T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(pixels - srgb * 255).max() <= 2
    assert np.abs(pixels - np.asarray(stored, int)).max() > 5  # it does something


def test_transparency_has_no_colours(tmp_path: Path) -> None:
    profile = profiles.rgb_profile(profiles.DISPLAY_P3, 2.2)
    rgba = np.dstack([RGB, RGB[..., 2]])
    pixels = decoded(saved(Image.fromarray(rgba), "PNG", icc_profile=profile))
    assert np.array_equal(pixels[..., 3], rgba[..., 3])
    assert np.array_equal(pixels[..., :3], _through_cms(Image.fromarray(RGB), profile))


def test_a_profile_of_srgb_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decoded(saved(Image.fromarray(RGB), "PNG", icc_profile=profile)), RGB)


def test_grey_profiles() -> None:
    image, profile = Image.fromarray(GREY), profiles.grey_profile(1.796875)
    pixels = decoded(saved(image, "PNG", icc_profile=profile))
    linear = (GREY / 255) ** 1.796875
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(pixels[..., 0] - srgb * 255).max() <= 2
    coloured = profiles.rgb_profile(profiles.ADOBE_RGB, 1.796875)  # grey numbers of a colour space
    pixels = decoded(saved(image, "PNG", icc_profile=coloured))
    assert np.abs(pixels - (srgb * 255)[..., None]).max() <= 2


def test_cmyk() -> None:
    inks = np.random.RandomState(1).randint(0, 256, (8, 8, 4)).astype(np.uint8)
    inks = np.kron(inks, np.ones((16, 16, 1), np.uint8))
    image = Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes())
    plain = (255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255
    assert np.abs(decoded(saved(image, "TIFF")) - plain).max() <= 1
    jpeg = decoded(saved(image, "JPEG", quality=100, subsampling=0))  # stored inverted
    assert np.abs(jpeg - plain).mean() < 3
    profile = profiles.cmyk_profile()
    pixels = decoded(saved(image, "TIFF", icc_profile=profile)).astype(int)
    assert np.abs(pixels - _through_cms(image, profile)).max() == 0
    assert np.abs(pixels - plain).max() > 30


@pytest.mark.parametrize(
    "profile",
    [b"nonsense", profiles.cmyk_profile(), profiles.rgb_profile(profiles.SRGB, 2.2)[:200]],
)
def test_a_profile_that_does_not_fit_is_ignored(profile: bytes) -> None:
    assert np.array_equal(decoded(saved(Image.fromarray(RGB), "PNG", icc_profile=profile)), RGB)


def test_a_phone_s_picture_with_a_depth_map() -> None:
    """MPO: a JPEG with further frames, which are no animation."""
    smooth = Image.linear_gradient("L").convert("RGB")
    data = saved(smooth, "MPO", save_all=True, append_images=[smooth.resize((40, 40))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.abs(decoded(data).astype(int) - np.asarray(smooth)).max() < 20


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_are_refused(format: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(RGB, i, axis=0)) for i in range(3)]
    try:
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {format}")
    assert "has 3 frames or pages" in refused_bytes(data, tmp_path)
    single = saved(frames[0], format, save_all=True)
    assert read_bytes(single, tmp_path).shape == RGB.shape


def read_bytes(data: bytes, tmp_path: Path) -> np.ndarray:
    (tmp_path / "b").write_bytes(data)
    return read(tmp_path / "b")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_files_are_refused(format: str, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8))
    data = saved(noise, format)
    for share in (0.02, 0.3, 0.9):
        assert refused_bytes(data[: int(len(data) * share)], tmp_path)
    for seed in range(30):  # anything may come of it, in one line or as a picture
        broken = np.frombuffer(data, np.uint8).copy()
        places = np.random.RandomState(seed).randint(0, min(len(data), 400), 8)
        broken[places] ^= np.uint8(255)
        (tmp_path / "c").write_bytes(broken.tobytes())
        with contextlib.suppress(RequestError):
            read(tmp_path / "c")


def test_what_is_no_picture(tmp_path: Path) -> None:
    assert "a is no picture that can be read" in refused_bytes(b"hello, world", tmp_path)
    assert "is empty" in refused_bytes(b"", tmp_path)
    assert "convert a HEIC" in refused_bytes(b"\0\0\0\x18ftypheic" + bytes(90), tmp_path)
    assert "No such file" in refused(tmp_path / "none.png")
    assert "Is a directory" in refused(tmp_path) or "regular file" in refused(tmp_path)
    assert "must be a path" in refused("")
    for text in ("a\0b.png", "\ud800.png", "a\nb.png", "x" * 5000, "a/" * 3000):
        assert "cannot be read" in refused(text)
    assert "base64" in refused("data:image/png,abc")
    assert "broken data URL" in refused("data:image/png;base64,abc!")
    assert "no picture" in refused("data:image/png;base64,AAAA")
    assert "data URL is empty" in refused("data:image/png;base64,")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refused(tmp_path / "pipe")
    assert "no regular file" in refused("/dev/zero")


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(picture.MAX_BYTES + 1)
    assert "may be at most" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("sides", [(12_000, 12_000), (200_000, 200_000), (0, 5), (2**31 - 1, 1)])
def test_bombs_and_empty_sizes(sides: tuple[int, int], tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", *sides, 8, profiles.RGB, 0, 0, 0)
    data = profiles.png(RGB, profiles.RGB).replace(
        struct.pack(">IIBBBBB", 9, 6, 8, profiles.RGB, 0, 0, 0), header
    )
    data = data[:29] + struct.pack(">I", profiles.zlib.crc32(b"IHDR" + header)) + data[33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refused_bytes(data, tmp_path)
    assert "0 x 5" in refused(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "must be a path, a PIL image or an array"),
        (None.__class__, "must be a path, a PIL image or an array"),
        ({"a": 1}, "must be a path, a PIL image or an array"),
        (RGB.astype(np.float32), "bytes .0 to 255., not of float32"),
        (RGB.astype(np.int64), "not of int64"),
        (mx.array(RGB).astype(mx.bfloat16), "not of float32"),
        (RGB[..., :2], "1, 3 or 4 channels, not 2"),
        (RGB[:0], "must have 1 to"),
        (RGB[None], "must be a path, a PIL image or an array"),
        (np.array(["a"]), "must be a path, a PIL image or an array"),
    ],
)
def test_arrays_that_are_no_pictures(value: Any, message: str) -> None:
    assert re.search(message, refused(value))


def test_warnings_are_not_shown(tmp_path: Path) -> None:
    """Pillow warns of broken EXIF data and of palettes, and nobody could act on it."""
    indexed = Image.fromarray(RGB[..., 0]).convert("P")
    data = saved(indexed, "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(data).shape == (6, 9, 4)
