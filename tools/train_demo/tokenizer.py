"""The demo's tokenizer: a byte-level BPE of 2,048 tokens, in Qwen2's form.

Trained on the words of the captions and on general English. The words are learned apart: with no
space between Chinese words, whole phrases would become single tokens, and what is said in another
order would be unknown.
"""

import json
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from mlx_zimage.prompt.template import CHAT_TEMPLATE
from mlx_zimage.prompt.tokenizer import ADDED_TOKENS, byte_level, default_added_tokens

from . import captions
from .scenes import COLOURS, GLYPHS, SHAPES

SIZE = 2048  # tokens, the added ones included
WEIGHT = 1000  # times that a caption's word is read
OTHERS_EN = ("letter", "digit", "the", "an", "in", "with", *captions.BESIDE_EN)
OTHERS_ZH = ("字母", "数字", "背景", "背景上", "上", "在", "的", "和", "，")


def train_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = byte_level(BPE())
    trainer = BpeTrainer(
        vocab_size=SIZE - len(ADDED_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens(default_added_tokens())
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": CHAT_TEMPLATE,
        "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "model_max_length": 131072,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, "utf-8")
    return tokenizer


def _corpus() -> Iterator[str]:
    for _ in range(WEIGHT):
        yield from _words()
    yield from pydoc_data.topics.topics.values()


def _words() -> Iterator[str]:
    """Each as it stands in a caption: English ones after a space, and at the start of a line."""
    english = [*COLOURS, *SHAPES, *GLYPHS, *OTHERS_EN, *captions.OPENINGS_EN]
    english += [text.format(a="a", colour="") for text in captions.GROUNDS_EN]
    english += [text for texts in captions.PLACES_EN.values() for text in texts]
    pairs = (*captions.RELATIONS_EN.values(), *captions.REVERSED_EN.values())
    english += [text for texts in pairs for text in texts]
    english += [text for texts in captions.SIZES_EN.values() for text in texts]
    for text in english:
        yield f" {text}"
        yield text.capitalize()
    yield from (*captions.COLOURS_ZH.values(), *OTHERS_ZH)
    yield from (text for texts in captions.SHAPES_ZH.values() for text in texts)
    yield from (text for texts in captions.SIZES_ZH.values() for text in texts)
    yield from (text for texts in captions.PLACES_ZH.values() for text in texts)
    yield from (text for texts in captions.REVERSED_ZH.values() for text in texts)
    yield from (text for texts in captions.RELATIONS_ZH.values() for text in texts)
