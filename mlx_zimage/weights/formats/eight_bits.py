"""The numbers that a byte can stand for."""

import numpy as np

FORMATS = {"F8_E4M3": (4, 7, True), "F8_E5M2": (5, 15, False)}  # exponent bits, bias, finite only
INTEGERS = "I8"


def table(dtype: str) -> np.ndarray:
    """Return the 256 numbers that a byte can stand for."""
    if dtype == INTEGERS:
        return np.arange(256).astype(np.uint8).view(np.int8).astype(np.float32)
    exponent_bits, bias, finite = FORMATS[dtype]
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponent = codes >> mantissa_bits & (1 << exponent_bits) - 1
    fraction = (codes & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    normal = np.where(exponent > 0, 1 + fraction, fraction)
    size = normal * 2.0 ** (np.maximum(exponent, 1) - bias)
    if finite:
        size[codes & 127 == 127] = np.nan
    else:
        size[exponent == 31] = np.where(fraction[exponent == 31] == 0, np.inf, np.nan)
    numbers: np.ndarray = np.where(codes & 128, -size, size).astype(np.float32)
    return numbers
