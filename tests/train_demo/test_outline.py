"""The distance between edges, against circles whose distance is known."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tools.train_demo.outline import apart, half_way, outlines
from tools.train_demo.scenes import COLOURS, SHAPES, Scene, Thing, paint


def _disc(x: float, y: float, radius: float) -> np.ndarray:
    """A map whose half-way points are a circle, exactly but for the pixels."""
    down, across = np.mgrid[:96, :96] + 0.5
    return np.clip(radius - np.hypot(across - x, down - y) + 0.5, 0, 1)


@pytest.mark.parametrize("radius", [10, 17.3, 33])
def test_edges_lie_where_the_circle_is(radius: float) -> None:
    points = half_way(_disc(47.3, 50.1, radius))
    assert len(points) > 4 * radius  # some for each pixel of the way
    away = np.hypot(points[:, 0] - 47.3, points[:, 1] - 50.1) - radius
    assert abs(away).max() < 0.1  # measured: 0.05


@pytest.mark.parametrize("more", [-2.0, 0.5, 1.0, 3.0])
def test_a_circle_of_another_size_is_as_far_as_its_radius(more: float) -> None:
    distance = apart(half_way(_disc(48, 48, 20)), half_way(_disc(48, 48, 20 + more)))
    assert distance == pytest.approx(abs(more), abs=0.05)


def test_a_circle_that_is_moved_is_two_thirds_as_far() -> None:
    """The distance at an angle t is d cos t, whose mean is 2/pi of d."""
    distance = apart(half_way(_disc(48, 48, 30)), half_way(_disc(49, 48, 30)))
    assert distance == pytest.approx(2 / math.pi, abs=0.02)


@pytest.mark.parametrize("name", [*SHAPES, "M", "8"])
def test_what_is_painted_right_is_at_no_distance(name: str) -> None:
    scene = Scene("white", (Thing(name, "blue", "medium"),) * 2, relation="left of")
    assert outlines(scene, paint(scene, 160, 112)) == pytest.approx([0, 0], abs=1e-5)
    other = Scene("white", (Thing("circle", "blue", "small"),) * 2, relation="left of")
    assert all(distance > 1 for distance in outlines(scene, paint(other, 160, 112)))


def test_colours_do_not_matter_and_what_is_missing_has_no_edge() -> None:
    scene = Scene("white", (Thing("star", "blue", "large"),))
    other = Scene("purple", (Thing("star", "yellow", "large"),))
    assert outlines(scene, paint(other, 96, 96))[0] < 0.1  # measured: 0.01
    assert outlines(scene, Image.new("RGB", (96, 96), COLOURS["white"])) == []


def test_a_droplet_is_far_from_every_edge() -> None:
    scene = Scene("green", (Thing("heart", "white", "small"),))
    image = paint(scene, 128, 128)
    ImageDraw.Draw(image).ellipse((8, 8, 14, 14), fill="white")
    assert outlines(scene, image)[0] > 3
