"""Work that is counted: what a picture costs, against the least that its request can cost."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mlx_zimage import ZImage
from mlx_zimage.bench import work
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.models.text_encoder import TextEncoder
from mlx_zimage.models.transformer import ZImageTransformer

PROMPT = "a red fox in the snow"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count multiplications and additions in matrix products and attention, by model."""
    counts: Counter[str] = Counter()
    within: list[str] = []

    def watch(owner: Any, name: str, count: Callable[..., int]) -> None:
        function = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if within:
                counts[within[-1]] += count(*args)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    def enter(owner: Any, name: str, label: str) -> None:
        function = getattr(owner, name)

        def entered(*args: Any, **kwargs: Any) -> Any:
            within.append(label)
            try:
                return function(*args, **kwargs)
            finally:
                within.pop()

        monkeypatch.setattr(owner, name, entered)

    watch(nn.Linear, "__call__", lambda layer, x: 2 * x.size * layer.weight.shape[0])
    watch(
        mx.fast,
        "scaled_dot_product_attention",
        lambda q, k, v: 4 * q.size * k.shape[2],  # (B, H, L, D), keys shared by query heads
    )
    enter(TextEncoder, "__call__", "text encoder")
    enter(ZImageTransformer, "prepare", "once")
    enter(ZImageTransformer, "modulate", "modulation")
    enter(ZImageTransformer, "__call__", "steps")
    return counts


def _least(checkpoint: Checkpoint, tokens: int, side: int, steps: int) -> dict[str, int]:
    return {
        "text encoder": work.encoding(checkpoint, tokens),
        "once": work.preparing(checkpoint, tokens),
        "modulation": steps * work.modulating(checkpoint),
        "steps": steps * work.forward(checkpoint, tokens, side, side),
    }


@pytest.mark.parametrize(
    ("kind", "side", "steps"), [("small", 64, 2), ("small", 96, 3), ("demo", 96, 2)]
)
def test_no_more_than_the_least(
    checkpoint: Callable[[str], Path],
    counted: Counter[str],
    kind: str,
    side: int,
    steps: int,
) -> None:
    """The published pipeline pads prompts to 512 tokens and runs the last layer for nothing."""
    model = ZImage.load(checkpoint(kind))
    result = model.generate(PROMPT, seed=1, steps=steps, width=side, height=side)
    opened = Checkpoint.open(checkpoint(kind))
    least = _least(opened, result.prompt_embeds.shape[0], side, steps)
    print({name: f"{counted[name] / least[name]:.4f} of the least" for name in least})
    assert counted.keys() == least.keys()
    for name, count in least.items():
        assert counted[name] <= 1.01 * count, name
        assert counted[name] >= count, name


def test_no_mask_for_one_picture(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[object] = set()
    function = mx.fast.scaled_dot_product_attention

    def watched(*args: Any, mask: Any = None, **kwargs: Any) -> mx.array:
        seen.add(mask if mask is None or isinstance(mask, str) else "an array")
        return function(*args, mask=mask, **kwargs)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", watched)
    model = ZImage.load(checkpoint("small"))
    model.generate(PROMPT, seed=1, steps=1, width=32, height=32)
    assert seen == {None, "causal"}
    model.generate(["a", "b"], seed=1, steps=1, width=32, height=32)
    assert seen == {None, "causal"}  # captions of as many tokens, once padded
    model.generate([PROMPT, PROMPT * 9], seed=1, steps=1, width=32, height=32)
    assert seen == {None, "causal", "an array"}
