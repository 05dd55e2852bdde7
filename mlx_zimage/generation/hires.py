"""A second pass for detail: the finished picture is enlarged, and painted over at low strength.

The picture is enlarged as pixels and encoded again: latents that are stretched themselves are of
no picture, and a low strength does not mend them. A result that is more than twice as wide as the
model's pictures is painted in tiles. The request's size decides that, not the machine's memory, so
that a request makes the same picture everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ..errors import RequestError
from ..fields import MAX_SIDE
from ..models.autoencoder import Autoencoder
from ..request import Request
from ..sampling.noise import NoiseStream, shifted_seeds
from .image import first_step
from .mask import noised
from .run import Beginning, Context, Prepared, Run
from .sampling import schedule_of
from .tiles import Size

STRENGTH = 0.35
WHOLE = 2  # times the model's own side, up to which a picture is painted as a whole
TILE = 1.5  # times the model's own side, that a tile has


class HiresFeature:
    """`hires`, and the strength that goes with it. Its plan wraps the run of all other features."""

    def fill(self, request: Request, context: Context) -> Mapping[str, Any]:
        """Return the default strength."""
        if request.hires is None:
            if request.hires_strength is not None:
                raise RequestError("hires_strength has no effect without hires; leave it out")
            return {}
        if request.hires_strength == 0:
            raise RequestError("hires_strength must be above 0, where no step runs")
        for name in ("mask", "outpaint", "focus"):
            if getattr(request, name) is not None:
                raise RequestError(
                    f"hires paints over all of the picture, and {name} keeps a part of it; make "
                    "the picture first, and then give it as the image of a request with hires"
                )
        return {"hires_strength": STRENGTH}

    def plan(self, run: Run, context: Context) -> Run:
        """Let a second run go on from the pictures of the first."""
        request = run.request
        if request.hires is None or request.hires == 1:
            return run
        size = enlarged(request, context)
        factor = context.checkpoint.vae.scale_factor
        height, width = size[1] // factor, size[0] // factor
        tile = tile_of((height, width), context)
        context.checkpoint.transformer.check_size(*(tile or (height, width)))
        patch = context.checkpoint.transformer.patch_size
        levels = schedule_of(request, context.scheduler, (height // patch) * (width // patch))
        schedule = levels.from_step(first_step(len(levels), request.hires_strength or STRENGTH))
        second = replace(
            run,
            shape=(*run.shape[:2], height, width),
            schedule=schedule,
            tile=tile,
            vary=None,  # it decides the layout, which the first run has done
            varied_steps=0,
            finish=None,
            steps_before=len(run.schedule),
        )
        workload = replace(
            run.workload,
            width=size[0],
            height=size[1],
            tile=tile and (tile[1] * factor, tile[0] * factor),
            steps=max(len(run.schedule), len(schedule)),
            encodes_image=True,
        )
        then = partial(_going_on, second, size)
        return replace(run, then=then, steps_after=len(schedule), workload=workload)


def enlarged(request: Request, context: Context) -> tuple[int, int]:
    """Return the width and height of the final picture."""
    assert request.hires is not None and request.width is not None and request.height is not None
    multiple = context.checkpoint.image_multiple
    units = [int(n * request.hires / multiple + 0.5) for n in (request.width, request.height)]
    sides = [n * multiple for n in units]
    if max(sides) > MAX_SIDE:
        raise RequestError(
            f"hires {request.hires:g} would enlarge {request.width} x {request.height} to "
            f"{sides[0]} x {sides[1]} pixels; a side may have at most {MAX_SIDE}"
        )
    return sides[0], sides[1]


def tile_of(size: Size, context: Context) -> Size | None:
    """Return the size of tiles in latents, or None for a picture that is painted as a whole."""
    factor = context.checkpoint.vae.scale_factor
    side = context.checkpoint.default_side / factor
    if size[0] * size[1] <= (WHOLE * side) ** 2:
        return None
    patch = context.checkpoint.transformer.patch_size
    tile = int(TILE * side) // patch * patch
    return min(tile, size[0]), min(tile, size[1])


def _going_on(run: Run, size: tuple[int, int], pictures: Sequence[Image.Image]) -> Run:
    """Return the second run, from the pictures of the first."""
    request = run.request
    seed = 0 if request.seed is None else request.seed
    stream = NoiseStream(request.noise or "torch-cpu", shifted_seeds(seed, 2))

    def prepare(vae: Autoencoder, _: NoiseStream) -> Prepared:
        images = []
        for picture in pictures:
            large = picture.resize(size, Image.Resampling.LANCZOS)
            pixels = mx.array(np.asarray(large, np.float32) / 127.5 - 1)
            images.append(vae.encode(pixels[None]).astype(mx.float32))
            mx.eval(images[-1])
        return {"image": mx.concatenate(images)}

    def begin(prepared: Prepared, _: NoiseStream) -> Beginning:
        noise = stream.draw(run.shape)
        return Beginning(noised(prepared["image"], noise, run.schedule.sigmas[0]))

    return replace(run, prepare=prepare, begin=begin)
