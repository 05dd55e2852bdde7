"""What both sides are asked to make, in the words of our `Request`."""

from dataclasses import dataclass, field
from typing import Any

PROMPT = "the red circle on the ice"
OTHER = (
    "a photo of a fox in the snow, 一只狐狸, with more words than fit in the shortest padding 🦊"
)
NEGATIVE = "blurred"
GUIDED = {"guidance": 4.0, "negative_prompt": NEGATIVE}


@dataclass(frozen=True)
class Case:
    name: str
    kind: str  # of checkpoint
    width: int
    height: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> dict[str, Any]:
        base = {"prompt": PROMPT, "steps": 8, "seed": 42, "guidance": 0.0}
        return {**base, "width": self.width, "height": self.height, **self.options}


TINY = [
    Case("small-turbo", "small", 64, 96),
    Case("small-smallest", "small", 32, 32, {"prompt": "", "seed": 0}),
    Case("small-guided", "small", 48, 32, GUIDED),
    Case("small-normalized", "small", 32, 48, {**GUIDED, "cfg_normalization": 1.0}),
    Case(
        "small-truncated",
        "small",
        32,
        32,
        {**GUIDED, "cfg_normalization": 0.5, "cfg_truncation": 0.4},
    ),
    Case("small-batch", "small", 32, 48, {"prompt": [PROMPT, OTHER]}),
    Case("small-batch-guided", "small", 32, 32, {"prompt": [PROMPT, OTHER], **GUIDED}),
    Case("small-seeds", "small", 48, 48, {"prompt": [PROMPT, PROMPT], "seed": [1, 2**40 + 5]}),
    Case("small-sigmas", "small", 32, 32, {"steps": 3, "schedule": [1.0, 0.6, 0.3]}),
    Case("small-long", "small", 32, 32, {"prompt": "the snow is red; " * 60}),
    Case("diffusers-turbo", "diffusers", 32, 32),
    Case("diffusers-wide", "diffusers", 64, 36, GUIDED),
    Case("wide-turbo", "wide", 64, 32),
    Case("wide-batch", "wide", 40, 64, {"prompt": [OTHER, PROMPT], **GUIDED}),
]
FULL_WIDTH = [
    Case("full-width-turbo", "full-width", 64, 96),
    Case("full-width-guided", "full-width", 32, 32, {**GUIDED, "cfg_normalization": 1.0}),
]
LIVE_ONLY = [
    Case("small-512", "small", 512, 512),
    Case("small-512-wide", "small", 512, 256),
    Case("demo", "demo", 128, 128, {"prompt": "a red circle on a blue background"}),
    Case("demo-other-side", "demo", 160, 96, {"prompt": "白色背景左上角的小的绿色三角形"}),
    Case("demo-guided", "demo", 128, 128, {**GUIDED, "prompt": "the letter R in white on black"}),
]
