"""Colour profiles and PNG files written by hand, so that reading does not judge itself."""

import struct
import zlib

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
D65 = (0.3127, 0.3290)


def matrix(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Linear RGB to XYZ, adapted from D65 to D50 as profiles are."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    scaled = xyz * np.linalg.solve(xyz, white)
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    return np.asarray(adapt @ scaled)


def rgb_profile(primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    tags = {b"wtpt": _xyz(D50)}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix(primaries).T, strict=True):
        tags[name] = _xyz(column)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = _gamma(gamma)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _gamma(gamma)})


def cmyk_profile() -> bytes:
    """Inks that are duller than Pillow's own: Lab at the 16 corners, interpolated between."""
    corners = []
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        lightness = 95 * (1 - 0.35 * c) * (1 - 0.45 * m) * (1 - 0.1 * y) * (1 - 0.85 * k)
        a, b = (60 * m - 35 * c) * (1 - k), (80 * y - 45 * c) * (1 - k)
        corners.append([lightness * 2.55, a + 128, b + 128])
    grid = np.array(corners).round().astype(np.uint8).tobytes()
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": lut})


def _xyz(values: np.ndarray) -> bytes:
    numbers = [round(float(value) * 65536) for value in values]
    return b"XYZ " + bytes(4) + struct.pack(">3i", *numbers)


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"made by hand"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(79),
        b"cprt": b"text" + bytes(4) + text + bytes(1),
        **tags,
    }
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    size = offset + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"    ", 0x02400000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(x * 65536) for x in D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def png(pixels: np.ndarray, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of 8 or 16 bits, by the array's type."""
    bits = pixels.dtype.itemsize * 8
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if bits == 16 else "u1")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    listed = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in listed)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
