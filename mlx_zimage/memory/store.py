"""The three parts of a model in memory: each loaded when first needed, dropped when asked."""

import re
import threading
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx

from .. import linux
from ..checkpoint.checkpoint import Checkpoint
from ..errors import RequestError
from ..models.autoencoder import Autoencoder
from ..models.text_encoder import TextEncoder
from ..models.transformer import ZImageTransformer
from ..quantization.recipe import Quantization
from ..weights.tensor import PARTS, Part
from .estimate import Estimate, Picture, Weights
from .room import Room

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
MODES = ("resident", "staged", "low")
MEMORY = ("auto", *MODES)
Loaded = TextEncoder | ZImageTransformer | Autoencoder


class Parts:
    """`memory`: "resident" keeps every part, "staged" only the one in use, "low" of that only the
    block in use; "auto" chooses."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        quantization: Quantization | None,
        dtype: str | None,
        memory: str,
    ):
        self.dtype = default_dtype() if dtype is None else dtype
        if self.dtype not in DTYPES:
            raise RequestError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        if memory not in MEMORY:
            raise RequestError(f"memory must be one of {', '.join(MEMORY)}, not {memory!r}")
        asked = {part: checkpoint.packings(part, quantization) for part in PARTS}
        stored = all(asked[part] == checkpoint.packings(part, None) for part in PARTS)
        if memory == "low" and not stored:
            raise RequestError(
                "memory='low' reads each block whenever it is used, so it must be stored as it is "
                "to be: convert the checkpoint with --q first, and leave quantize out"
            )
        kinds = part_dtypes(DTYPES[self.dtype])
        # What does not fit the quantization is refused here, before a weight is read.
        weights = {p: Weights.of(checkpoint, p, kinds[p], asked[p]) for p in PARTS}
        self._room = Room(checkpoint, weights, MODES if stored else MODES[:-1])
        self.memory = self._room.choose() if memory == "auto" else memory
        self._room.check_weights(self.memory)
        low = self.memory == "low"
        self._loaders: dict[Part, Callable[[], Loaded]] = {
            "text_encoder": lambda: checkpoint.load_text_encoder(
                kinds["text_encoder"], quantization, streamed=low
            ),
            "transformer": lambda: checkpoint.load_transformer(
                kinds["transformer"], quantization, streamed=low
            ),
            "vae": lambda: checkpoint.load_vae(kinds["vae"]),
        }
        self._loaded: dict[Part, Loaded] = {}
        self._lock = threading.Lock()

    @property
    def keeps(self) -> bool:
        """Whether a part is shared by all runs. If not, each run gets its own, to use up."""
        return self.memory == "resident"

    def __contains__(self, part: Part) -> bool:
        return part in self._loaded

    def get(self, part: Part) -> Loaded:
        """The part, loaded if it is not there; two threads never load it twice."""
        if not self.keeps:
            return self._loaders[part]()
        with self._lock:
            if part not in self._loaded:
                self._loaded[part] = self._loaders[part]()
            return self._loaded[part]

    def estimate(self, picture: Picture) -> Estimate:
        return self._room.estimate(self.memory, self._as_loaded(picture))

    def check_room(self, picture: Picture) -> None:
        """A picture that cannot fit is refused before any work."""
        self._room.check(self.memory, self._as_loaded(picture))

    def done(self) -> None:
        """A phase is over, and all that it made is evaluated."""
        if not self.keeps:
            _give_back()

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()
        _give_back()

    def _as_loaded(self, picture: Picture) -> Picture:
        """A text encoder that is there takes room, whether it is used or not."""
        return replace(picture, encodes=picture.encodes or "text_encoder" in self._loaded)


def _give_back() -> None:
    """What freed arrays leave behind, on a GPU and on a Linux CPU."""
    mx.clear_cache()
    linux.give_back()


def part_dtypes(dtype: mx.Dtype) -> dict[Part, mx.Dtype]:
    """In float16 the transformer alone: the others are not known to stay within it."""
    others = mx.bfloat16 if dtype == mx.float16 else dtype
    return {"text_encoder": others, "transformer": dtype, "vae": others}


def default_dtype() -> str:
    """16 bit on a GPU; on a CPU, where 16-bit arithmetic is many times slower, 32.

    Apple's GPUs have bfloat16 of their own from generation 15 on; before, float16 is the fast one.
    """
    if mx.default_device().type != mx.DeviceType.gpu:
        return "float32"
    apple = re.match(r"applegpu_g(\d+)", str(mx.device_info().get("architecture")))
    return "float16" if apple and int(apple[1]) < 15 else "bfloat16"
