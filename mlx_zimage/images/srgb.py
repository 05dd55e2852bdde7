"""Any PIL image into upright 8-bit sRGB.

Notable:
- numbers of 16 bits are rounded to 8, not cut;
- floating-point greys are 0 to 1, or 0 to 255 if one of them is above `HIGHLIGHT`;
- an embedded colour profile is applied, unless it is sRGB's own to within rounding.
"""

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

HIGHLIGHT = 16.0  # the brightest highlight that a picture of floats from 0 to 1 may have
ROUNDING = 2  # levels that a profile may differ by and still be taken for sRGB's
SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def to_srgb(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) bytes, or (H, W, 4) where the image has transparency."""
    image = _upright(image)
    profile = image.info.get("icc_profile")
    alpha = _alpha(image)
    pixels = np.asarray(_in_colour(_opaque(_in_8_bits(image)), profile))
    if alpha is None or alpha.min() == 255:
        return pixels
    return np.dstack([pixels, alpha])


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF data say, if they can be read."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data raise errors of many kinds, and the pixels are fine
        return image


def _alpha(image: Image.Image) -> np.ndarray | None:
    """Return the opacity (H, W), or None where an image has none."""
    key = image.info.get("transparency")
    if image.mode in SIXTEEN_BITS and isinstance(key, int):
        return np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or key is not None:
        return np.asarray(image.convert("RGBA").getchannel("A"))
    return None


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return greys of more bits with 8, and every other image as it is."""
    if image.mode in SIXTEEN_BITS:
        numbers = np.asarray(image).astype(np.int64)
        # Mode I also holds greys of 8 bits that were converted to it.
        scale = 1.0 if image.mode == "I" and numbers.max() <= 255 else 1 / 257
    elif image.mode == "F":
        numbers = np.nan_to_num(np.asarray(image, np.float64), posinf=1.0, neginf=0.0)
        scale = 255.0 if numbers.max() <= HIGHLIGHT else 1.0
    else:
        return image
    return Image.fromarray(np.clip(numbers * scale, 0, 255).round().astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image without its transparency, and without premultiplication or palette."""
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "LA":
        return image.getchannel("L")
    if image.mode == "PA":
        return image.convert("RGBA").convert("RGB")
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    if image.mode == "P":  # by way of RGBA where the transparency would be matted
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("RGBA", "RGBX"):
        return Image.merge("RGB", image.split()[:3])
    return image


def _in_colour(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the image as RGB in sRGB, from the colour space of its profile if it has one."""
    if profile:
        try:
            return _from_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken profile, or one of another kind of image: sRGB is assumed
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _target(), "LAB", "RGB")
        return _applied(transform, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_profile(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(
        source.profile.xcolor_space.strip(), ""
    )
    if mode == "RGB":
        image = image if image.mode == "RGB" else _in_colour(image, None)
    elif mode == "L" and image.mode == "1":
        image = image.convert("L")
    if image.mode != mode:
        raise ValueError(f"a profile of {mode or 'another'} space for an image of {image.mode}")
    transform = ImageCms.buildTransform(source, _target(), mode, "RGB")
    if mode == "RGB" and _is_identity(transform):
        return image
    return _applied(transform, image)


def _is_identity(transform: Any) -> bool:
    """Return whether a transform changes no colour by more than rounding."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    changed = np.asarray(_applied(transform, Image.fromarray(colours)))
    return int(np.abs(changed.astype(int) - colours).max()) <= ROUNDING


def _applied(transform: Any, image: Image.Image) -> Image.Image:
    changed = ImageCms.applyTransform(image, transform)
    assert changed is not None  # it is, where the change is in place
    return changed


@cache
def _target() -> Any:
    return ImageCms.createProfile("sRGB")
