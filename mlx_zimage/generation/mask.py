"""Painting a part of a picture: masks, borders (outpainting) and the part in focus.

Notable:
- a mask alone acts as the published inpainting does: hard at half white, the top left pixel of
  each block of latents decides, and after each step the rest is the source at that noise level;
- with a border or a focus, which it does not have, every latent that the mask touches is painted;
- a soft edge is a share for each latent, by which source and painting are mixed in each step;
- the source's own pixels are pasted back at the end, with a seam outside of the mask.
"""

from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx
import numpy as np
from PIL import Image

from ..errors import RequestError
from ..images import canvas, masks
from ..images.canvas import Placement, Size
from ..images.picture import MAX_PIXELS, Picture
from ..request import Request
from ..sampling.samplers import SamplerStep
from .run import Keep

SEAM = 8  # pixels over which the source's own pixels return, unless the mask is softer
FIELDS = ("mask_softness", "keep_unmasked", "focus")
"""The fields that act with a mask or a border alone."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A source with its border, and what of it is painted."""

    image: Image.Image
    mask: Image.Image | None  # white is painted; of any size with the image's aspect
    is_published: bool  # whether the published pipeline has all that is asked for
    focus: int | None  # the margin around the mask's bounds

    @classmethod
    def of(cls, request: Request, index: int, multiple: int) -> "Scene":
        """Build the scene of one of a request's pictures."""
        picture, mask = _one(request.image, index), _one(request.mask, index)
        assert picture is not None
        image = canvas.over_white(picture)
        levels = None if mask is None else masks.to_mask(mask)
        if levels is not None and not masks.is_alike(levels.size, image.size):
            raise RequestError(
                f"mask must be of the image's size or have its aspect, {_size(image.size)}, "
                f"not {_size(levels.size)}"
            )
        if request.outpaint is None and request.focus is None:
            return cls(image, levels, True, None)
        hard = np.zeros(image.size[::-1], bool)
        if levels is not None:
            hard = masks.harden(levels.resize(image.size, canvas.LANCZOS))
        if request.outpaint is not None:
            border = canvas.grown(image.size, request.outpaint, multiple)
            left, top, right, bottom = border
            size = (image.width + left + right, image.height + top + bottom)
            if size[0] * size[1] > MAX_PIXELS:
                raise RequestError(
                    f"outpaint must leave at most {MAX_PIXELS:,} pixels, not {_size(size)}"
                )
            image = canvas.bordered(image, border)
            hard = np.pad(hard, ((top, bottom), (left, right)), constant_values=True)
        return cls(image, Image.fromarray(hard), False, request.focus)

    def box(self, aspect: float | None = None) -> tuple[int, int, int, int]:
        """Return the part that is painted: all of it, or the mask's surroundings."""
        if self.focus is None:
            return 0, 0, *self.image.size
        assert self.mask is not None
        hard = masks.harden(self.mask)
        _check_paints(hard)
        margin = max(self.focus, SEAM)
        return canvas.surroundings(masks.bounds(hard), margin, self.image.size, aspect)

    @property
    def extent(self) -> Size:
        """The size of the part that is painted."""
        left, top, right, bottom = self.box()
        return right - left, bottom - top

    def at(self, size: Size, fit: str, multiple: int) -> "Canvas":
        """Return what is painted, at the size at which it is painted."""
        box = self.box(size[0] / size[1])
        if self.focus is None:
            placement = canvas.fitted(self.image.size, size, fit, multiple)
        else:
            placement = Placement(size, box, (0, 0, *size))
        return Canvas(self, box, placement)


@dataclass(frozen=True, eq=False)
class Canvas:
    """A part of a scene, at the size at which it is painted."""

    scene: Scene
    box: tuple[int, int, int, int]
    placement: Placement

    @cached_property
    def image(self) -> Image.Image:
        placement, (width, height) = self.placement, self.placement.size
        left, top, right, bottom = placement.place
        border = (left, top, width - right, height - bottom)
        return canvas.bordered(placement.apply(self.scene.image), border)

    @cached_property
    def levels(self) -> Image.Image | None:
        """The mask, not yet hard. What a "pad" adds is painted."""
        mask = self.scene.mask
        if mask is None:
            return None
        if mask.mode == "1":
            mask = mask.convert("L")
        fitted = self.placement.scaled(self.scene.image.size, mask.size).apply(mask)
        if self.placement.is_complete:
            return fitted
        white = Image.new(fitted.mode, self.placement.size, "white")
        white.paste(fitted, self.placement.place[:2])
        return white

    @cached_property
    def mask(self) -> np.ndarray | None:
        """The hard mask (H, W)."""
        if self.levels is None:
            return None
        hard = masks.harden(self.levels)
        _check_paints(hard)
        return hard

    def latent_mask(self, factor: int, softness: float) -> np.ndarray:
        """Return the share (h, w) of each latent that is painted, in float32."""
        assert self.mask is not None
        if softness:
            return masks.averages(masks.feather(self.mask, softness), factor)
        if not self.scene.is_published:
            return masks.touched(self.mask, factor).astype(np.float32)
        corners = masks.corners(self.mask, factor)
        if not corners.any():
            raise RequestError(
                "mask is too small: at this size it covers no latent; make it larger, or ask for "
                "a focus or a mask_softness"
            )
        return corners.astype(np.float32)

    def finish(self, painted: Image.Image, softness: float) -> Image.Image:
        """Return the scene with its own pixels, and what was painted where the mask is."""
        assert self.mask is not None
        seam = max(softness, SEAM)
        if self.scene.focus is None:
            opacity = masks.feather(self.mask, seam)
            above, below = np.asarray(painted), np.asarray(self.image)
            return Image.fromarray(masks.composed(above, below, opacity))
        left, top, right, bottom = self.box
        size = (right - left, bottom - top)
        assert self.scene.mask is not None
        hard = masks.harden(self.scene.mask.crop(self.box))
        opacity = masks.feather(hard, seam * size[0] / self.placement.size[0])
        above = np.asarray(painted.resize(size, canvas.LANCZOS))
        whole = np.array(self.scene.image)
        part = whole[top:bottom, left:right]
        part[:] = masks.composed(above, part, opacity)
        return Image.fromarray(whole)


def blend(image: mx.array, noise: mx.array, painted: mx.array) -> Keep:
    """Return what a step keeps: the source at the step's noise level where nothing is painted."""

    def keep(latents: mx.array, step: SamplerStep) -> mx.array:
        return (1 - painted) * noised(image, noise, step.next_sigma) + painted * latents

    return keep


def noised(image: mx.array, noise: mx.array, sigma: float) -> mx.array:
    """Return latents at a noise level: 1 is the noise alone, 0 the image."""
    level = np.float32(sigma)
    return float(level) * noise + float(np.float32(1) - level) * image


def check(request: Request) -> None:
    """Refuse what cannot act, or leaves nothing to paint."""
    if request.outpaint is not None and not any(request.outpaint):
        raise RequestError("outpaint must add at least one pixel at a side, not 0 at all four")
    if request.mask is None and request.outpaint is None:
        for name in FIELDS:
            if getattr(request, name) is not None:
                raise RequestError(f"{name} has no effect without a mask or outpaint; leave it out")
    if request.focus is None:
        return
    if request.keep_unmasked is False:
        raise RequestError("a focus pastes back what it paints; leave keep_unmasked out or true")
    if request.fit is not None:
        raise RequestError("fit has no effect with a focus, which chooses the part; leave it out")


def _check_paints(hard: np.ndarray) -> None:
    if not hard.any():
        raise RequestError(
            "mask has no part that is at least half white (or transparent): nothing would be "
            "painted"
        )


def _one(value: Picture | tuple[Picture, ...] | None, index: int) -> Picture | None:
    return value[index] if isinstance(value, tuple) else value


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]} pixels"
