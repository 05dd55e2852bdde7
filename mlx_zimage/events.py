"""Events: what a generation, a download or a conversion reports as it happens.

Each is a frozen dataclass. `job` is the index of the event's request where several requests run as
one job.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .checks import excerpt, shape_text
from .errors import RequestError

if TYPE_CHECKING:
    import mlx.core as mx
    from PIL import Image

    from .request import Request

Value = TypeVar("Value")
Phase = Literal["load", "encode", "denoise", "decode"]


@dataclass(frozen=True)
class Started:
    """A phase begins; `component` is the model that a load phase reads."""

    phase: Phase
    component: str = ""
    job: int = 0


@dataclass(frozen=True)
class Finished:
    """A phase is over."""

    phase: Phase
    seconds: float
    component: str = ""
    job: int = 0


@dataclass(frozen=True)
class Truncated:
    """A prompt has more tokens than the model takes; its end is ignored."""

    lost: str  # the full text that is ignored
    limit: int  # tokens
    job: int = 0

    @property
    def message(self) -> str:
        """One line for a person: the limit and the first words that are ignored."""
        return f"the prompt is longer than {self.limit} tokens; ignored: {excerpt(self.lost)}"

    def __repr__(self) -> str:
        return f"Truncated(lost={excerpt(self.lost)}, limit={self.limit}, job={self.job})"


@dataclass(frozen=True, eq=False)
class Step:
    """Step `number` of `total` is done.

    A pickled step is without what `preview` draws with: send the picture instead.
    """

    number: int
    total: int
    sigma: float  # the noise level reached
    seconds: float
    latents: "mx.array"  # (B, C, h, w), float32; a copy
    job: int = 0
    draw: "Callable[[int], Image.Image] | None" = field(default=None, repr=False)

    def preview(self, index: int = 0) -> "Image.Image":
        """Return a small picture of what the model now expects picture `index` to become.

        Nothing is computed before this is called, and little then: no VAE decodes anything. The
        shorter side has 256 pixels, or as many as the finished picture; with a model that was
        loaded with a preview decoder, the picture has its full size.
        """
        if self.draw is None:
            raise RequestError("this step has no preview: it was pickled, or made without a model")
        count = len(self.latents)
        if not isinstance(index, int) or not 0 <= index < count:
            raise RequestError(f"index must be one of the {count} pictures', not {excerpt(index)}")
        return self.draw(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "draw": None}

    def __repr__(self) -> str:
        return (
            f"Step(number={self.number}, total={self.total}, sigma={self.sigma:.4g}, "
            f"seconds={self.seconds:.3g}, latents={shape_text(self.latents)}, job={self.job})"
        )


@dataclass(frozen=True, eq=False)
class Result:
    """A picture, and what made it."""

    image: "Image.Image"
    latents: "mx.array"  # (1, C, h, w), float32
    prompt_embeds: "mx.array"  # (length, width): the prompt as the transformer took it
    request: "Request"  # with every field filled in: it makes this picture again
    index: int = 0  # the picture's position in its request
    metadata: Mapping[str, Any] = field(default_factory=dict)  # for `save_picture`
    job: int = 0

    def __repr__(self) -> str:
        width, height = self.image.size
        prompts = self.request.prompts
        prompt = excerpt(prompts[self.index]) if self.index < len(prompts) else "None"
        return f"Result({width} x {height}, prompt={prompt}, index={self.index}, job={self.job})"


Event = Started | Finished | Truncated | Step | Result


@dataclass(frozen=True)
class Downloaded:
    """`done` of all the files' `total` bytes are on this machine; `file` is the latest."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class Written:
    """`done` of a component's `total` bytes are written."""

    component: str
    done: int
    total: int


@dataclass(frozen=True)
class Uploaded:
    """`done` of all the files' `total` bytes are on the Hub; `file` is the latest."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class Calibrated:
    """`done` of `total` pieces of work for a component are done; `task` says of which kind."""

    component: str
    task: Literal["drawing", "calibrating", "measuring"]
    done: int
    total: int


def finish(events: Generator[Any, None, Value]) -> Value:
    """Run a generator of events to its end, and return what it returns."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            value: Value = end.value
            return value
