"""The components of a model in memory: loaded when first needed, and freed when told to."""

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..device import give_back
from ..dtypes import DTYPES, default_dtype
from ..errors import RequestError
from ..lora.loras import Chosen
from ..models.activations import Workload
from ..quantization.recipe import Quantization
from .estimate import Estimate, WeightBytes
from .room import Room

Memory = Literal["auto", "resident", "staged", "low"]
MEMORY = get_args(Memory)
MODES = ("resident", "staged", "low")


class Store:
    """A model's components under one of the memory modes.

    "resident" keeps every component, "staged" only the one in use, "low" only the block in use of
    that one; "auto" chooses among them.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        quantization: Quantization | None = None,
        dtype: str | None = None,
        memory: str = "auto",
    ):
        self.dtype = check_dtype(dtype)
        check_memory(memory)
        components = checkpoint.components
        packings = {name: stored.packings(quantization) for name, stored in components.items()}
        is_stored = all(packings[n] == stored.packings(None) for n, stored in components.items())
        if memory == "low" and not is_stored:
            raise RequestError(
                "memory='low' reads each block from disk whenever it is used, so the checkpoint "
                "must be stored as quantized: convert it, and load the folder that this writes"
            )
        dtypes = {n: stored.component.dtype(DTYPES[self.dtype]) for n, stored in components.items()}
        weights = {n: WeightBytes.of(components[n], dtypes[n], packings[n]) for n in components}
        self.weights, self.packings = weights, packings
        self._room = self._base_room = Room(checkpoint, weights, MODES if is_stored else MODES[:-1])
        self.memory = self._room.choose() if memory == "auto" else memory
        self._room.check_weights(self.memory)
        self._dtypes = dtypes
        streamed = self.memory == "low"
        self._loaders = {
            name: partial(stored.load, dtypes[name], quantization, streamed=streamed)
            for name, stored in components.items()
        }
        self.loras = Chosen()
        self._loaded: dict[str, Any] = {}
        self._changed: dict[str, tuple[Chosen, Any]] = {}  # loaded components with LoRAs
        self._lock = threading.Lock()

    @property
    def shares(self) -> bool:
        """Whether all runs share a component. If not, each run has its own and may use it up."""
        return self.memory == "resident"

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def get(self, name: str) -> Any:
        """Return a component's module, loaded if need be; two threads never load it twice."""
        if not self.shares:
            return self.loras.attach(name, self._loaders[name]())
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._loaders[name]()
            if not self.loras.changes(name):
                return self._loaded[name]
            loras, module = self._changed.get(name, (None, None))
            if loras is not self.loras:
                module = self.loras.attach(name, self._loaded[name])
                self._changed[name] = self.loras, module
            return module

    def put(self, loras: Chosen) -> None:
        """Let these LoRAs act from the next generation on, if there is room for them."""
        room = self._base_room.beside(loras.nbytes(self._dtypes))
        room.check_weights(self.memory)
        with self._lock:
            self.loras, self._room = loras, room
            self._changed.clear()

    def as_now(self) -> "Store":
        """Return this store with the LoRAs of this moment, whatever is put into it later."""
        with self._lock:
            return copy(self)

    def estimate(self, workload: Workload) -> Estimate:
        return self._room.estimate(self.memory, self._with_loaded(workload))

    def check_room(self, workloads: Sequence[Workload]) -> None:
        """Refuse a workload that cannot fit, before any work."""
        for workload in workloads:
            self._room.check(self.memory, self._with_loaded(workload))

    def release(self) -> None:
        """Return freed memory to the system after a phase whose arrays are all evaluated."""
        if not self.shares:
            give_back()

    def end_job(self) -> None:
        """Return what a job's arrays leave in MLX's cache.

        On a GPU the next job's arrays rarely have the same sizes, and the cache would grow to the
        size of the device's memory.
        """
        if self.shares:
            mx.clear_cache()
        else:
            give_back()

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()
            self._changed.clear()
            self.loras.clear()
        give_back()

    def _with_loaded(self, workload: Workload) -> Workload:
        """Count a text encoder that is loaded, whether it is used or not."""
        return replace(workload, encodes=workload.encodes or "text_encoder" in self._loaded)


def check_dtype(dtype: object) -> str:
    """Return the name of a type to compute in, the device's default for None."""
    if dtype is None:
        return default_dtype()
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise RequestError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    return dtype


def check_memory(memory: object) -> None:
    if not isinstance(memory, str) or memory not in MEMORY:
        raise RequestError(f"memory must be one of {', '.join(MEMORY)}, not {memory!r}")
