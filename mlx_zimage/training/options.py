"""The options of a training run, each checked when they are put together."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from .. import checks
from ..errors import RequestError

Kind = Literal["lora", "lokr"]
KINDS = ("lora", "lokr")
Levels = Literal["uniform", "logit-normal"]
LEVELS = ("uniform", "logit-normal")
MOST_STEPS = 1_000_000
RESUMABLE = ("save_every", "sample_every", "sample_prompts", "compile", "checkpointing")
"""Options that may differ when a run is resumed: they do not change the weights."""


@dataclass(frozen=True)
class TrainingOptions:
    """The choices of a training run. The defaults suit a dozen pictures of one thing or style."""

    steps: int = 1000
    batch: int = 1  # pictures in one pass
    accumulate: int = 1  # passes whose gradients make a step
    resolution: int | None = None  # the side of a square of the most pixels; None: the model's
    kind: Kind = "lora"
    rank: int = 16  # of a LoRA
    factor: int = -1  # the smaller side of a LoKr's first matrix; -1: as square as can be
    targets: tuple[str, ...] = ("attention", "feed_forward")
    learning_rate: float = 1e-4
    warmup: int = 20  # steps over which the learning rate rises; then it falls along a cosine
    weight_decay: float = 1e-4
    clip: float = 1.0  # the longest that a step's gradient may be
    levels: Levels = "uniform"  # the distribution of noise levels, before the shift
    shift: float | None = None  # None: the scheduler's
    caption_dropout: float = 0.05  # the share of captions that are left out
    default_caption: str | None = None  # of pictures without one
    seed: int = 0
    checkpointing: bool = True  # compute each block again for its gradient, to save memory
    compile: bool | None = None  # None: on a GPU
    save_every: int = 250  # steps
    sample_every: int = 250  # steps; 0: none
    sample_prompts: tuple[str, ...] = ()  # empty: the first two captions

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, MOST_STEPS),
            ("batch", 1, 1024),
            ("accumulate", 1, 1024),
            ("rank", 1, 4096),
            ("warmup", 0, MOST_STEPS),
            ("seed", 0, 2**32 - 1),
            ("save_every", 1, MOST_STEPS),
            ("sample_every", 0, MOST_STEPS),
        ):
            self._set(name, checks.integer(name, getattr(self, name), low, high))
        for name, least, most in (
            ("learning_rate", 1e-9, 10.0),
            ("weight_decay", 0.0, 10.0),
            ("clip", 1e-9, 1e9),
            ("caption_dropout", 0.0, 1.0),
        ):
            self._set(name, checks.number(name, getattr(self, name), least, most))
        if self.resolution is not None:
            self._set("resolution", checks.integer("resolution", self.resolution, 16, 4096))
        if self.shift is not None:
            self._set("shift", checks.number("shift", self.shift, 0.01, 100.0))
        if self.default_caption is not None:
            checks.string("default_caption", self.default_caption)
        checks.one_of("kind", self.kind, KINDS)
        checks.one_of("levels", self.levels, LEVELS)
        checks.integer("factor", self.factor, -1, 4096)
        if self.factor == 0:
            raise RequestError("factor must be -1 or from 1 to 4096, not 0")
        for name in ("targets", "sample_prompts"):
            value = getattr(self, name)
            texts = checks.strings(name, value) if value else ()
            self._set(name, (texts,) if isinstance(texts, str) else texts)
        if not self.targets:
            raise RequestError("targets must name at least one layer, such as 'attention'")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def fixed(self) -> dict[str, Any]:
        """The options that decide the weights, as JSON holds them."""
        fields = dataclasses.asdict(self)
        return {
            name: [*value] if isinstance(value, tuple) else value
            for name, value in fields.items()
            if name not in RESUMABLE
        }
