"""Qwen2's byte-level BPE tokenizer, with the `tokenizers` library alone."""

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from ..checks import path_text, reason
from ..errors import CheckpointError
from .template import PROMPT_START, chat

MAX_TOKENS = 512  # diffusers' limit, which includes the chat template

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ADDED_TOKENS = (  # of Qwen3, in the order of their ids, which follow the vocabulary's
    *(f"<|{name}|>" for name in ("endoftext", "im_start", "im_end")),
    *(f"<|{name}_{end}|>" for name in ("object_ref", "box", "quad") for end in ("start", "end")),
    *(f"<|{name}|>" for name in ("vision_start", "vision_end", "vision_pad")),
    *(f"<|{name}|>" for name in ("image_pad", "video_pad")),
    *("<tool_call>", "</tool_call>"),
    *(f"<|fim_{name}|>" for name in ("prefix", "middle", "suffix", "pad")),
    *("<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
)


@dataclass(frozen=True)
class Tokens:
    """A prompt's token ids, and the end of the prompt that did not fit."""

    ids: tuple[int, ...]
    lost: str


class PromptTokenizer:
    """A tokenizer that puts prompts into the chat template and limits their length."""

    def __init__(self, tokenizer: Tokenizer):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer

    @classmethod
    def from_folder(cls, folder: Path) -> "PromptTokenizer":
        """Read tokenizer.json, or vocab.json and merges.txt."""
        try:
            if (folder / "tokenizer.json").is_file():
                return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))
            if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                return cls(_from_vocabulary(folder))
        except Exception as error:  # tokenizers raises plain Exception on a broken file
            raise CheckpointError(
                f"{path_text(folder)}: the tokenizer cannot be read ({reason(error)}); "
                "copy its files again from the official checkpoint"
            ) from error
        raise CheckpointError(
            f"{path_text(folder)} must hold tokenizer.json, or vocab.json and merges.txt; "
            "copy them from the official checkpoint"
        )

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, without the chat template."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def turn(self, prompt: str, limit: int = MAX_TOKENS) -> Tokens:
        """Return the tokens of a prompt in the chat template, cut at `limit` as in diffusers."""
        text = chat(prompt)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        lost = ""
        if len(encoding.ids) > limit:
            # The last token may be a part of a character, which then does not count as lost.
            end = max(encoding.offsets[limit - 1][1], PROMPT_START)
            lost = text[end : PROMPT_START + len(prompt)]
        return Tokens(tuple(encoding.ids[:limit]), lost)


def byte_level(model: BPE) -> Tokenizer:
    """Return a tokenizer with Qwen2's normalization, splitting and bytes around a vocabulary."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _from_vocabulary(folder: Path) -> Tokenizer:
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#version"))
    merges = [(first, second) for first, _, second in pairs]
    tokenizer = byte_level(BPE(vocabulary, merges))
    for token in _added_tokens(folder):
        # A token in the vocabulary keeps its id; the others are numbered after it, in order.
        tokenizer.add_tokens([token])
    return tokenizer


def default_added_tokens() -> list[AddedToken]:
    """Return Qwen3's special tokens."""
    return [AddedToken(text, normalized=False, special=True) for text in ADDED_TOKENS]


def _added_tokens(folder: Path) -> list[AddedToken]:
    """Return the special tokens that tokenizer_config.json lists, or else those of Qwen3."""
    path = folder / "tokenizer_config.json"
    data = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    listed = data.get("added_tokens_decoder")
    if not listed:
        return default_added_tokens()
    return [
        AddedToken(
            entry["content"],
            single_word=entry.get("single_word", False),
            lstrip=entry.get("lstrip", False),
            rstrip=entry.get("rstrip", False),
            normalized=entry.get("normalized", False),
            special=entry.get("special", True),
        )
        for _, entry in sorted(listed.items(), key=lambda item: int(item[0]))
    ]
