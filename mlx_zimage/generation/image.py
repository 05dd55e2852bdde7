"""Pictures from pictures: a run that begins with an image instead of noise alone.

As in the published pipeline, the latents are a sample of the VAE's posterior, drawn before the
noise, and `strength` is the share of the steps that run, rounded up to a step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ..errors import RequestError
from ..fields import MAX_SIDE
from ..images.canvas import near_size, other_side
from ..images.picture import Picture
from ..models.autoencoder import Autoencoder
from ..request import Request
from ..sampling.noise import NoiseStream
from ..sampling.schedule import Schedule
from . import mask
from .mask import Canvas, Scene
from .run import Beginning, Context, Prepared, Run

STRENGTH, PAINTED_STRENGTH = 0.6, 1.0  # without and with something to paint anew
WIDENED = 2  # times the default area that a picture with a border may have and keep its pixels
FIELDS = ("fit", "strength", "mask", "outpaint", *mask.FIELDS)
"""The fields that act with an image alone."""


class ImageFeature:
    """`image` and all that goes with it. It wraps the run's first noise and its schedule."""

    def fill(self, request: Request, context: Context) -> Mapping[str, Any]:
        """Return the defaults of an image's fields, and the size that it is brought to."""
        _check(request)
        if request.image is None:
            return {}
        fields: dict[str, Any] = _size(request, context)
        paints = request.mask is not None or request.outpaint is not None
        fields["strength"] = PAINTED_STRENGTH if paints else STRENGTH
        if paints:
            fields |= {"mask_softness": 0.0, "keep_unmasked": True}
        if request.focus is None:
            fields["fit"] = "crop"
        return fields

    def plan(self, run: Run, context: Context) -> Run:
        """Encode the image, mix it with the run's noise, and run the steps from there on."""
        request = run.request
        if request.image is None:
            return run
        assert request.strength is not None
        schedule = _rest(run.schedule, request.strength)
        canvases = _canvases(request, context)
        is_shared = not isinstance(request.image, tuple) and request.focus is None
        images = canvases[:1] if is_shared else canvases
        painted = _painted(canvases, request, context)

        def prepare(vae: Autoencoder, stream: NoiseStream) -> Prepared:
            return {"image": _encoded(vae, images, stream, run.shape)}

        def begin(prepared: Prepared, stream: NoiseStream) -> Beginning:
            noise = run.begin(prepared, stream).latents
            image = mx.broadcast_to(prepared["image"], noise.shape)
            latents = mask.noised(image, noise, schedule.sigmas[0])
            if painted is None:
                return Beginning(latents)
            return Beginning(latents, mask.blend(image, noise, painted))

        def finish(picture: Image.Image, index: int) -> Image.Image:
            canvas = canvases[index % len(canvases)]
            return canvas.finish(picture, request.mask_softness or 0.0)

        return replace(
            run,
            request=_light(request, images, canvases),
            schedule=schedule,
            workload=replace(run.workload, steps=len(schedule), encodes_image=True),
            prepare=prepare,
            begin=begin,
            finish=finish if request.keep_unmasked else run.finish,
        )


def first_step(steps: int, strength: float) -> int:
    """Return the first step that runs, counted from 0, as the published pipelines round it."""
    return int(max(steps - min(steps * strength, steps), 0))


def _rest(schedule: Schedule, strength: float) -> Schedule:
    first = first_step(len(schedule), strength)
    if first == len(schedule):
        raise RequestError(
            f"strength must be above 0, not {strength:g}: no step would run, and the image would "
            "stay as it is"
        )
    return schedule.from_step(first)


def _check(request: Request) -> None:
    if request.image is None:
        for name in FIELDS:
            if getattr(request, name) is not None:
                raise RequestError(
                    f"{name} has no effect without an image; give one, or leave it out"
                )
        return
    if request.latents is not None:
        raise RequestError(
            "image has no effect with latents, which a run begins with; leave one out"
        )
    mask.check(request)


def _size(request: Request, context: Context) -> dict[str, Any]:
    """Return the size that the first image is brought to, as far as it is not asked for."""
    if request.width is not None and request.height is not None:
        return {}
    checkpoint = context.checkpoint
    multiple = checkpoint.image_multiple
    rows, columns = (n * multiple for n in checkpoint.transformer.axes_lens[1:])
    most = (min(columns, MAX_SIDE), min(rows, MAX_SIDE))
    width, height = Scene.of(request, 0, multiple).extent
    if request.width is not None:
        return {"height": other_side(request.width, height / width, multiple, most[1])}
    if request.height is not None:
        return {"width": other_side(request.height, width / height, multiple, most[0])}
    area = checkpoint.default_side**2 * (WIDENED if request.outpaint else 1)
    enlarge = request.focus is not None
    width, height = near_size((width, height), multiple, area, most, enlarge=enlarge)
    return {"width": width, "height": height}


def _canvases(request: Request, context: Context) -> list[Canvas]:
    """Return one canvas for all pictures, or one for each."""
    assert request.width is not None and request.height is not None
    multiple, size = context.checkpoint.image_multiple, (request.width, request.height)
    several = isinstance(request.image, tuple) or isinstance(request.mask, tuple)
    scenes = [Scene.of(request, i, multiple) for i in range(request.count if several else 1)]
    return [scene.at(size, request.fit or "crop", multiple) for scene in scenes]


def _painted(canvases: Sequence[Canvas], request: Request, context: Context) -> mx.array | None:
    """Return the latents' mask (1 or B, 1, h, w), or None where all of them are painted."""
    if request.mask is None and request.outpaint is None:
        return None
    factor, softness = context.checkpoint.vae.scale_factor, request.mask_softness or 0.0
    return mx.array(np.stack([c.latent_mask(factor, softness) for c in canvases])[:, None])


def _encoded(
    vae: Autoencoder, images: Sequence[Canvas], stream: NoiseStream, shape: tuple[int, ...]
) -> mx.array:
    """Return a posterior sample of each image, encoded one at a time."""
    noise = stream.draw((len(images), *shape[1:]))
    samples = []
    for i, canvas in enumerate(images):
        unit = np.asarray(canvas.image, np.float32) / np.float32(255)
        pixels = mx.array(np.float32(2) * unit - np.float32(1))[None]
        samples.append(vae.encode(pixels, noise[i : i + 1]).astype(mx.float32))
        mx.eval(samples[-1])
    return mx.concatenate(samples)


def _light(request: Request, images: Sequence[Canvas], canvases: Sequence[Canvas]) -> Request:
    """Return the request with pictures of the size that is used, which make the same picture.

    A request is saved with each picture, and a photo may be many times larger than that.
    """
    if request.outpaint is not None or request.focus is not None:
        return request
    changes: dict[str, Any] = {"image": [Picture(np.asarray(c.image)) for c in images]}
    if request.mask is not None:
        levels = [canvas.levels for canvas in canvases]
        changes["mask"] = [Picture(np.asarray(x.convert("RGB"))) for x in levels if x is not None]
    one = {name: list_[0] for name, list_ in changes.items() if len(list_) == 1}
    return request.replace(**changes | one)
