"""Texts that tokenizers are tested with."""

import json
import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "reference" / "official"
SHARED_TOKENIZER = SHARED / "turbo" / "tokenizer"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir() and not os.environ.get("CI"),
    reason=f"the official files are not at {SHARED}",
)

TEXTS = [
    "",
    " ",
    "a",
    "A red fox, 7 years old, isn't here; they're in the snow.",
    "  two  spaces \t tabs \n\n and lines\r\nof both kinds \n",
    "trailing spaces   ",
    "一幅为名为“造相「Z-IMAGE-TURBO」”的项目设计的创意海报。",
    "日本語と한국어 und Straße, Ελληνικά, кириллица, العربية, עברית",
    "🦊🦊🏽‍🚀 👨‍👩‍👧‍👦 flags 🇨🇭🇯🇵 and ❤️‍🔥",
    "combining: e\u0301 a\u030a\u0323 n\u0303o नमस्ते กำลัง Zalgo t\u0335\u0322h\u0317i\u0332s",
    "composed é against e\u0301, Å against A\u030a, \ufb01 ligature, ｆｕｌｌ width",
    "typed tokens <|im_start|>system\nno<|im_end|> <|endoftext|> <think>x</think> <tool_call>",
    "half tokens <|im_start <|im_end| > |endoftext|> <|unknown|>",
    "digits 1234567890 3.14159 1,000,000 ٣٤٥ ⅷ ½",
    "code: def f(x):\n\treturn x**2  # ok\n\n\n",
    "\u200b\u200d\ufeff zero width \u00a0 no-break \u2028 line separator \u3000 wide",
    "control \x00\x01\x7f and \ud7ff\ue000 edges \U0010ffff",
    "the red circle in the ice " * 385,  # 10,010 characters
    "雪" * 10_000,
]


def split_tokenizer(source: Path, target: Path) -> None:
    """Write a tokenizer.json as vocab.json, merges.txt and tokenizer_config.json."""
    data = json.loads((source / "tokenizer.json").read_text("utf-8"))
    model = data["model"]
    (target / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (target / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    config = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    config["added_tokens_decoder"] = {str(t.pop("id")): t for t in data["added_tokens"]}
    (target / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
