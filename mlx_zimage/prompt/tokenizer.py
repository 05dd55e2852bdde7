"""Qwen2's byte-level BPE, through `tokenizers` alone."""

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from ..errors import CheckpointError
from .template import PROMPT_START, chat

MAX_TOKENS = 512  # diffusers' limit for the whole turn, the template included

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ADDED_TOKENS = (  # Qwen3's, in the order of their ids, right after the vocabulary
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
    ids: tuple[int, ...]
    lost: str  # the end of the prompt that did not fit


class PromptTokenizer:
    def __init__(self, tokenizer: Tokenizer):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer

    @classmethod
    def from_folder(cls, folder: Path) -> "PromptTokenizer":
        """From tokenizer.json, or from vocab.json and merges.txt."""
        try:
            if (folder / "tokenizer.json").is_file():
                return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))
            if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                return cls(_from_vocabulary(folder))
        except Exception as error:  # tokenizers raises plain Exception on a broken file
            raise CheckpointError(
                f"{folder}: the tokenizer cannot be read ({error}); "
                "copy its files again from the official checkpoint"
            ) from error
        raise CheckpointError(
            f"{folder} must hold tokenizer.json, or vocab.json and merges.txt; "
            "copy them from the official checkpoint"
        )

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def turn(self, prompt: str, limit: int = MAX_TOKENS) -> Tokens:
        """The prompt in its chat turn, its end cut off where too long, as diffusers cuts it."""
        text = chat(prompt)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        lost = ""
        if len(encoding.ids) > limit:
            # Several tokens may share one character: what is left of it is not lost.
            kept = max(encoding.offsets[limit - 1][1], PROMPT_START)
            lost = text[kept : PROMPT_START + len(prompt)]
        return Tokens(tuple(encoding.ids[:limit]), lost)


def byte_level(model: BPE) -> Tokenizer:
    """Qwen2's way from text to bytes and back, around any vocabulary."""
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
    merges = [
        (left, right)
        for left, _, right in (line.partition(" ") for line in lines if line)
        if not left.startswith("#version")
    ]
    tokenizer = byte_level(BPE(vocabulary, merges))
    for token in _added_tokens(folder):
        # Tokens already in the vocabulary keep their id; the others follow it, in order.
        tokenizer.add_tokens([token])
    return tokenizer


def default_added_tokens() -> list[AddedToken]:
    return [AddedToken(text, normalized=False, special=True) for text in ADDED_TOKENS]


def _added_tokens(folder: Path) -> list[AddedToken]:
    """As tokenizer_config.json lists them, else Qwen3's own."""
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
