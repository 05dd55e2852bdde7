"""The three parts of a model in memory: each loaded when first needed, dropped when asked."""

import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx

from ..errors import OutOfMemoryError, RequestError
from ..models.autoencoder import Autoencoder
from ..models.text_encoder import TextEncoder
from ..models.transformer import ZImageTransformer
from .estimate import Estimate, Picture, Weights, estimate
from .folder import Checkpoint
from .quantize import Quantization
from .tensors import PARTS, Part

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
MODES = ("resident", "staged", "low")
MEMORY = ("auto", *MODES)
SHARE = 0.85
"""Of the device's memory, that memory="auto" plans with."""
DEFAULT_SIDE = 1024
"""Of a picture, where the VAE's config does not say what it was made for."""

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
        kind = DTYPES[self.dtype]
        asked = {part: checkpoint.packings(part, quantization) for part in PARTS}
        stored = all(asked[part] == checkpoint.packings(part, None) for part in PARTS)
        if memory == "low" and not stored:
            raise RequestError(
                "memory='low' reads each block whenever it is used, so it must be stored as it is "
                "to be: convert the checkpoint with --q first, and leave quantize out"
            )
        kinds = dict.fromkeys(PARTS, kind)
        if kind == mx.float16:
            kinds["text_encoder"] = mx.bfloat16  # it is not known to stay within float16
        self._checkpoint = checkpoint
        # What does not fit the quantization is refused here, before a weight is read.
        self._weights = {
            part: Weights.of(checkpoint, part, kinds[part], asked[part]) for part in PARTS
        }
        self._modes = MODES if stored else MODES[:-1]
        self.memory = self._chosen() if memory == "auto" else memory
        self._check_weights()
        low = self.memory == "low"
        self._loaders: dict[Part, Callable[[], Loaded]] = {
            "text_encoder": lambda: checkpoint.load_text_encoder(
                kinds["text_encoder"], quantization, streamed=low
            ),
            "transformer": lambda: checkpoint.load_transformer(kind, quantization, streamed=low),
            "vae": lambda: checkpoint.load_vae(kind),
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

    def estimate(self, picture: Picture, memory: str | None = None) -> Estimate:
        return estimate(self._checkpoint, self._weights, memory or self.memory, picture)

    def check_room(self, picture: Picture) -> None:
        """A picture that cannot fit is refused before any work."""
        needed = self.estimate(picture).peak
        if needed <= device_memory():
            return
        asked = f"{picture.width} x {picture.height} pixels"
        asked += f", {picture.count} at once," if picture.count > 1 else ""
        raise OutOfMemoryError(
            f"{asked} would take {needed / 1e9:.2f} GB with memory={self.memory!r}, and this "
            f"device has {device_memory() / 1e9:.2f} GB; {self._what_fits(picture)}"
        )

    def done(self) -> None:
        """A phase is over, and all that it made is evaluated."""
        if not self.keeps:
            mx.clear_cache()

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()
        mx.clear_cache()

    def _chosen(self) -> str:
        """The first way whose usual picture leaves some room, else the last."""
        side = self._checkpoint.vae.sample_size or DEFAULT_SIDE
        for memory in self._modes:
            if self.estimate(Picture(side, side), memory).peak <= SHARE * device_memory():
                return memory
        return self._modes[-1]

    def _check_weights(self) -> None:
        """Those that cannot fit are refused before one is read."""
        sizes = [weights.whole for weights in self._weights.values()]
        needed = {"resident": sum(sizes), "staged": max(sizes)}.get(self.memory, 0)
        if needed <= device_memory():
            return
        staged = f"memory='staged' takes {max(sizes) / 1e9:.2f} GB, "
        raise OutOfMemoryError(
            f"the weights take {needed / 1e9:.2f} GB with memory={self.memory!r}, and this device "
            f"has {device_memory() / 1e9:.2f} GB; {staged if self.memory == 'resident' else ''}"
            "fewer bits take less, and a checkpoint converted with --q may be loaded with "
            "memory='low'"
        )

    def _what_fits(self, picture: Picture) -> str:
        for memory in self._modes:
            needed = self.estimate(picture, memory).peak
            if needed <= device_memory():
                return f"memory={memory!r} would take {needed / 1e9:.2f} GB"
        for share in (2, 3, 4, 6, 8, 12, 16):
            width, height = (side // share for side in (picture.width, picture.height))
            smaller = replace(picture, width=width, height=height)
            if self.estimate(smaller).peak <= device_memory():
                return f"{width} x {height} would fit, or a checkpoint of fewer bits might"
        return "a checkpoint of fewer bits takes less"


def default_dtype() -> str:
    """16 bit on a GPU; on a CPU, where 16-bit arithmetic is many times slower, 32.

    Apple's GPUs have bfloat16 of their own from generation 15 on; before, float16 is the fast one.
    """
    if mx.default_device().type != mx.DeviceType.gpu:
        return "float32"
    apple = re.match(r"applegpu_g(\d+)", str(mx.device_info().get("architecture")))
    return "float16" if apple and int(apple[1]) < 15 else "bfloat16"


def device_memory() -> int:
    """Bytes the device may use: what MLX reports of a Metal or CUDA one, else the machine's."""
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "memory_size", "total_memory"):
        if isinstance(value := info.get(key), int):
            return value
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
