"""The evaluation, on a stand-in for the model that paints what the words say, or something else."""

import re
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from PIL import Image

from mlx_zimage import ZImage
from tools.train_demo.evaluate import Tally, columns, evaluate, held_out, prompts, table
from tools.train_demo.scenes import Scene, paint


@dataclass
class Painter:
    """Answers with the pictures of `scenes`, one after the other."""

    scenes: list[Scene]
    asked: int = 0

    def generate(self, prompt: str, *, width: int, height: int, seed: int) -> Any:
        scene = self.scenes[self.asked]
        assert seed == self.asked
        self.asked += 1
        return cast(Any, type("Drawn", (), {"image": paint(scene, width, height)}))


def _evaluate(drawn: list[Scene], asked: list[Scene], **options: Any) -> Tally:
    return evaluate(cast(ZImage, Painter(drawn)), asked, **options)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_what_is_painted_right_scores_full(size: tuple[int, int]) -> None:
    scenes = held_out(60)
    tally = _evaluate(scenes, scenes, size=size)
    assert {tally.share(question) for question in tally.asked} == {1.0}
    assert tally.asked["background"] == 60
    assert tally.asked["shape"] + tally.asked["glyph"] == sum(len(s.things) for s in scenes)
    assert tally.asked["one thing"] + tally.asked["two things"] == 60


def test_what_is_wrong_counts_where_it_is_wrong() -> None:
    scenes = held_out(20)
    other = ["white" if scene.background != "white" else "black" for scene in scenes]
    wrong = [replace(s, background=colour) for s, colour in zip(scenes, other, strict=True)]
    tally = _evaluate(wrong, scenes)
    assert tally.share("background") == 0
    assert tally.share("everything") == 0
    assert tally.share("place") > 0.7  # but where a thing is now as white as its ground


def test_held_out_scenes_are_new_and_the_same_every_time() -> None:
    scenes = held_out(50)
    assert all(scene.held_out for scene in scenes)
    assert scenes == held_out(50)
    assert scenes != held_out(50, seed=2)
    assert all(re.search("[a-z]", text) for text in prompts(scenes))
    assert not any(re.search("[a-z]", text) for text in prompts(scenes, "zh"))


def test_the_table_shows_every_question() -> None:
    scenes = held_out(10)
    tally = _evaluate(scenes, scenes)
    text = table({"English": tally, "Chinese": tally})
    assert text.splitlines()[0] == "| | English | Chinese |"
    for question in tally.asked:
        assert f"| {question} | 100.0% | 100.0% |" in text
    assert isinstance(paint(scenes[0], 96, 96), Image.Image)


@pytest.mark.slow
def test_a_calibrated_copy_is_scored() -> None:
    tally = columns("demo", held_out(2))["q4 calibrated"]()
    assert tally.asked["background"] == 2
    assert tally.share("background") == 1
