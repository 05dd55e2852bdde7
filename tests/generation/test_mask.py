"""Painting a part of a picture: masks, borders and the part in focus."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import RequestError, Result, Step, ZImage
from mlx_zimage.generation import mask as painting
from mlx_zimage.generation.mask import SEAM
from mlx_zimage.images import masks

Load = Callable[[str], Path]
PHOTO = np.random.RandomState(0).randint(0, 256, (64, 80, 3)).astype(np.uint8)
MASK = np.zeros((64, 80), np.uint8)
MASK[16:40, 24:56] = 255
SHORT: dict[str, Any] = {"steps": 3, "seed": 1, "width": 80, "height": 64}


@pytest.fixture
def model(checkpoint: Load) -> ZImage:
    return ZImage.load(checkpoint("small"), dtype="float32")


def paint(model: ZImage, **options: Any) -> Result:
    result = model.generate(options.pop("prompt", "x"), **{"image": PHOTO, **SHORT, **options})
    assert isinstance(result, Result)
    return result


def pixels(result: Result) -> np.ndarray:
    return np.asarray(result.image)


@pytest.mark.parametrize("softness", [0, 20])
def test_pixels_outside_of_the_seam_stay(model: ZImage, softness: float) -> None:
    result = pixels(paint(model, mask=MASK, mask_softness=softness))
    loose = pixels(paint(model, mask=MASK, mask_softness=softness, keep_unmasked=False))
    opacity = masks.feather(MASK > 0, max(softness, SEAM))
    assert np.array_equal(result[opacity == 0], PHOTO[opacity == 0])
    assert np.array_equal(result[MASK > 0], loose[MASK > 0])
    assert not np.array_equal(loose[opacity == 0], PHOTO[opacity == 0])
    assert not np.array_equal(result[MASK > 0], PHOTO[MASK > 0])


def test_latents_outside_of_the_mask_are_the_image_s(model: ZImage) -> None:
    """Whatever the prompt, in every step."""
    runs = []
    for prompt in ("a red fox", "snow"):
        events = model.stream(prompt, image=PHOTO, mask=MASK, **SHORT)
        runs.append([np.array(e.latents) for e in events if isinstance(e, Step)])
    kept = MASK[::8, ::8] == 0
    for a, b in zip(*runs, strict=True):
        assert np.array_equal(a[..., kept], b[..., kept])
        assert (a[..., ~kept] != b[..., ~kept]).mean() > 0.9


def test_a_soft_edge_mixes_latents(model: ZImage) -> None:
    hard, soft = (paint(model, mask=MASK, mask_softness=softness) for softness in (0, 16))
    other = paint(model, mask=MASK, mask_softness=16, prompt="another")
    changes = np.abs(np.array(soft.latents) - np.array(other.latents)).mean(axis=(0, 1))
    assert (changes[MASK[::8, ::8] > 0] > 0).all()
    assert changes[2, 2] > 0 and changes[0, 9] == 0  # within 16 pixels of the mask, and beyond
    assert not np.array_equal(np.array(hard.latents), np.array(soft.latents))


def test_grey_counts_from_half(model: ZImage) -> None:
    dark, light = (np.where(MASK > 0, level, 0).astype(np.uint8) for level in (127, 128))
    assert np.array_equal(pixels(paint(model, mask=light)), pixels(paint(model, mask=MASK)))
    with pytest.raises(RequestError, match="mask has no part that is at least half white"):
        model.check("x", image=PHOTO, mask=dark, **SHORT)


@pytest.mark.parametrize("form", ["RGB", "alpha", "bool", "1", "double", "P"])
def test_every_form_of_a_mask(model: ZImage, form: str) -> None:
    grey = Image.fromarray(MASK)
    mask: Any = {
        "RGB": np.stack([MASK] * 3, axis=-1),
        "alpha": np.dstack([PHOTO, 255 - MASK]),  # transparent is painted, as in OpenAI's edits
        "bool": MASK > 0,
        "1": grey.convert("1"),
        "double": grey.resize((160, 128), Image.Resampling.NEAREST),
        "P": grey.convert("P"),
    }[form]
    assert np.array_equal(pixels(paint(model, mask=mask)), pixels(paint(model, mask=MASK)))


def test_a_mask_for_each(model: ZImage) -> None:
    other = np.ascontiguousarray(MASK[::-1])
    both = model.generate(["x", "x"], image=PHOTO, mask=[MASK, other], **SHORT)
    for result, mask in zip(both, (MASK, other), strict=True):
        far = masks.feather(mask > 0, SEAM) == 0
        assert np.array_equal(pixels(result)[far], PHOTO[far])
        assert not np.array_equal(pixels(result)[mask > 0], PHOTO[mask > 0])


def test_what_a_pad_adds_is_painted(model: ZImage) -> None:
    options: dict[str, Any] = {"mask": MASK, "fit": "pad", "width": 80, "height": 96}
    a, b = (pixels(paint(model, **options, prompt=prompt)) for prompt in ("a fox", "snow"))
    assert (a[:16] != b[:16]).mean() > 0.5 and (a[-16:] != b[-16:]).mean() > 0.5
    assert np.array_equal(a[26:30, :10], PHOTO[10:14, :10])


def test_focus_paints_a_small_part_at_full_size(model: ZImage) -> None:
    photo = np.random.RandomState(1).randint(0, 256, (200, 300, 3)).astype(np.uint8)
    mask = np.zeros((200, 300), np.uint8)
    mask[150:162, 250:266] = 255
    options: dict[str, Any] = {"image": photo, "mask": mask, "width": None, "height": None}
    result = paint(model, **options, focus=10)
    assert result.image.size == (300, 200)
    height, width = np.array(result.latents).shape[2:]
    assert 0.8 < height * width / 64 <= 1  # the area of this checkpoint's default
    far = masks.feather(mask > 0, SEAM) == 0
    assert np.array_equal(pixels(result)[far], photo[far])
    assert (pixels(result)[mask > 0] != photo[mask > 0]).mean() > 0.9
    thin = np.zeros_like(mask)
    thin[101, 101] = 255  # covers no latent's corner, and is painted nevertheless
    with pytest.raises(RequestError, match="mask is too small"):
        model.check("x", image=photo, mask=thin, width=304, height=208)
    assert (
        pixels(paint(model, **{**options, "mask": thin}, focus=4))[101, 101] != photo[101, 101]
    ).any()


def test_focus_of_an_aspect(model: ZImage) -> None:
    result = paint(model, mask=MASK, focus=0, width=48, height=96)
    assert result.image.size == (80, 64) and result.latents.shape[2:] == (12, 6)


def test_focus_with_an_image_and_a_mask_for_each(model: ZImage) -> None:
    other = np.ascontiguousarray(MASK[::-1, ::-1])
    both = model.generate(["x", "y"], image=PHOTO, mask=[MASK, other], focus=2, **SHORT)
    for result, mask in zip(both, (MASK, other), strict=True):
        far = masks.feather(mask > 0, SEAM) == 0
        assert np.array_equal(pixels(result)[far], PHOTO[far])


@pytest.mark.parametrize(
    ("border", "size", "corner"),
    [
        ((16, 0, 0, 0), (96, 64), (16, 0)),
        ((0, 0, 5, 0), (96, 64), (0, 0)),
        ((8, 7, 4, 3), (96, 80), (12, 13)),
        ((1, 1, 1, 1), (96, 80), (1, 1)),
    ],
)
def test_borders(model: ZImage, border: Any, size: Any, corner: Any) -> None:
    """The picture's own pixels stay, except at the seam."""
    result = paint(model, outpaint=border, width=None, height=None)
    assert result.image.size == size
    left, top = corner
    inside = pixels(result)[top : top + 64, left : left + 80]
    new = np.ones(size[::-1], bool)
    new[top : top + 64, left : left + 80] = False
    far = masks.feather(new, SEAM)[top : top + 64, left : left + 80] == 0
    assert np.array_equal(inside[far], PHOTO[far])
    assert len(np.unique(pixels(result)[new])) > 10


def test_a_border_and_a_mask(model: ZImage) -> None:
    result = paint(model, outpaint=(16, 0, 0, 0), mask=MASK, width=None, height=None)
    inside = pixels(result)[:, 16:]
    assert (inside[MASK > 0] != PHOTO[MASK > 0]).mean() > 0.9
    assert np.array_equal(
        inside[50:], np.where(np.arange(80)[:, None] < 9, inside[50:], PHOTO[50:])
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_softness": 3}, "mask_softness has no effect without a mask or outpaint"),
        ({"keep_unmasked": False}, "keep_unmasked has no effect without a mask or outpaint"),
        ({"focus": 3}, "focus has no effect without a mask or outpaint"),
        ({"mask": MASK, "mask_softness": -1}, "mask_softness must be a number from 0"),
        ({"mask": MASK, "keep_unmasked": 1}, "keep_unmasked must be true or false"),
        ({"mask": MASK[:48]}, "mask must be of the image's size .* 80 x 64 pixels, not 80 x 48"),
        ({"mask": MASK.T.copy()}, "mask must be of the image's size"),
        ({"mask": np.zeros_like(MASK)}, "nothing would be painted"),
        ({"mask": np.zeros_like(MASK), "focus": 1}, "nothing would be painted"),
        ({"mask": MASK, "focus": 1, "keep_unmasked": False}, "a focus pastes back"),
        ({"mask": MASK, "focus": 1, "fit": "pad"}, "fit has no effect with a focus"),
        ({"outpaint": (0, 0, 0, 0)}, "outpaint must add at least one pixel"),
        ({"outpaint": (1, 2, 3)}, "outpaint must be four numbers of pixels"),
        ({"outpaint": (-1, 2, 3, 4)}, "outpaint must be a whole number from 0"),
        ({"outpaint": (8192, 8192, 8192, 8192)}, "outpaint must leave at most"),
        ({"mask": "none.png"}, "mask none.png cannot be read"),
        ({"mask": [MASK, MASK]}, "mask must be one for all or one for each of 1 picture"),
    ],
)
def test_refused_before_any_work(model: ZImage, options: Any, message: str) -> None:
    for judge in (model.check, model.estimate, model.stream):
        with pytest.raises(RequestError, match=message):
            judge("x", image=PHOTO, **options)


def test_levels_of_noise() -> None:
    import mlx.core as mx

    image, noise = mx.array([2.0]), mx.array([5.0])
    assert painting.noised(image, noise, 0.0).item() == 2
    assert painting.noised(image, noise, 1.0).item() == 5
    assert painting.noised(image, noise, 0.25).item() == 2.75
