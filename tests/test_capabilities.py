"""What a checkpoint says that it draws, and which prompts ask for something else."""

import json
import random
import shutil
from pathlib import Path

import pytest

from mlx_zimage import CheckpointError, ZImage
from mlx_zimage.capabilities import VOCABULARY, Vocabulary
from mlx_zimage.hub.locate import DEMO
from tools.train_demo.assemble import vocabulary
from tools.train_demo.captions import caption
from tools.train_demo.scenes import random_scene


@pytest.fixture(scope="module")
def known() -> Vocabulary:
    vocabulary = ZImage.load("demo").capabilities().vocabulary
    assert vocabulary is not None
    return vocabulary


def test_the_demo_says_what_it_draws(known: Vocabulary) -> None:
    assert json.loads((DEMO / VOCABULARY).read_text("utf-8")) == vocabulary()
    assert "letters and digits" in known.draws
    assert known.knows(known.example)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_caption_is_known(known: Vocabulary, language: str) -> None:
    generator = random.Random(0)
    captions = [caption(random_scene(generator), generator, language) for _ in range(500)]
    assert all(map(known.knows, captions))


@pytest.mark.parametrize(
    "prompt", ["a red fox", "", "the startled hearth", "一只红色的狐狸", "blue"]
)
def test_what_it_cannot_draw_is_not_known(known: Vocabulary, prompt: str) -> None:
    assert not known.knows(prompt)


@pytest.mark.parametrize("prompt", ["A STAR!", "the digit-7", "heart\nin red", "画一个红色的圆"])
def test_words_are_told_from_what_surrounds_them(known: Vocabulary, prompt: str) -> None:
    assert known.knows(prompt)


def test_a_checkpoint_without_a_vocabulary_draws_anything(tmp_path: Path) -> None:
    folder = shutil.copytree(DEMO, tmp_path / "ck")
    (folder / VOCABULARY).unlink()
    assert ZImage.load(folder).capabilities().vocabulary is None


@pytest.mark.parametrize("content", ["[]", "{", '{"draws": "x", "example": "y", "words": "star"}'])
def test_a_vocabulary_that_is_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / VOCABULARY
    file.write_text(content)
    with pytest.raises(CheckpointError, match=VOCABULARY):
        Vocabulary.read(file)
