"""The chat turn, its cut, and tokenizers that cannot be read. Ids are compared in tests/parity."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_zimage.errors import CheckpointError
from mlx_zimage.prompt.template import chat
from mlx_zimage.prompt.tokenizer import ADDED_TOKENS, MAX_TOKENS, SPLIT, PromptTokenizer
from tests.prompt.texts import SHARED_TOKENIZER, TEXTS, needs_shared, split_tokenizer


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("small") / "tokenizer"


def test_template() -> None:
    assert chat(" a\n") == "<|im_start|>user\n a\n<|im_end|>\n<|im_start|>assistant\n"


def test_both_forms_give_the_same_ids(folder: Path, tmp_path: Path) -> None:
    split_tokenizer(folder, tmp_path)
    json_form, split_form = (
        PromptTokenizer.from_folder(folder),
        PromptTokenizer.from_folder(tmp_path),
    )
    (tmp_path / "tokenizer_config.json").unlink()
    without_config = PromptTokenizer.from_folder(tmp_path)
    for text in TEXTS:
        assert json_form.encode(text) == split_form.encode(text) == without_config.encode(text)


def test_merges_with_a_hash(folder: Path, tmp_path: Path) -> None:
    """Only the version line is a comment: a merge may begin with #."""
    split_tokenizer(folder, tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "##": 300}))
    merges = (tmp_path / "merges.txt").read_text() + "\n# #\n"
    (tmp_path / "merges.txt").write_text(merges)
    assert PromptTokenizer.from_folder(tmp_path).encode("##") == [300]


def test_a_short_prompt_loses_nothing(folder: Path) -> None:
    tokens = PromptTokenizer.from_folder(folder).turn("the red circle")
    assert tokens.lost == ""
    assert len(tokens.ids) < 32


def test_the_cut(folder: Path) -> None:
    tokenizer = PromptTokenizer.from_folder(folder)
    template = len(tokenizer.turn("").ids)
    # One byte is one token here. The end of the template goes first, then the end of the prompt.
    fits = "x" * (MAX_TOKENS - template)
    assert tokenizer.turn(fits).lost == ""
    assert len(tokenizer.turn(fits).ids) == MAX_TOKENS
    start = len(tokenizer.encode("<|im_start|>user\n"))
    assert tokenizer.turn("x" * (MAX_TOKENS - start)).lost == ""
    assert tokenizer.turn("x" * (MAX_TOKENS - start) + "yz").lost == "yz"
    assert tokenizer.turn("🦊" * 512).lost == "🦊" * (512 - (MAX_TOKENS - start + 3) // 4)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "must hold tokenizer.json, or vocab.json and merges.txt"),
        ({"vocab.json": "{}"}, "must hold tokenizer.json, or vocab.json and merges.txt"),
        ({"tokenizer.json": ""}, "the tokenizer cannot be read"),
        ({"tokenizer.json": '{"version": "1.0"'}, "the tokenizer cannot be read"),
        ({"vocab.json": "{", "merges.txt": ""}, "the tokenizer cannot be read"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b\n"}, "the tokenizer cannot be read"),
    ],
)
def test_unreadable(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        PromptTokenizer.from_folder(tmp_path)


@needs_shared
def test_official_tokenizer() -> None:
    data = json.loads((SHARED_TOKENIZER / "tokenizer.json").read_text("utf-8"))
    assert [token["content"] for token in data["added_tokens"]] == list(ADDED_TOKENS)
    assert data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == SPLIT
    tokenizer = PromptTokenizer.from_folder(SHARED_TOKENIZER)
    assert tokenizer.encode("<|im_start|>") == [151644]
    assert tokenizer.turn("").ids[0] == 151644


@needs_shared
def test_official_vocabulary_and_merges() -> None:
    json_form = PromptTokenizer.from_folder(SHARED_TOKENIZER)
    split_form = PromptTokenizer.from_folder(SHARED_TOKENIZER.parents[1] / "qwen-vocab")
    for text in TEXTS:
        assert json_form.encode(text) == split_form.encode(text), text[:80]
