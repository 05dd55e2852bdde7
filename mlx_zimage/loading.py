"""From a source to an opened checkpoint with its store: located, fetched, copied."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .checkpoint.checkpoint import Checkpoint
from .errors import LoraError
from .events import Downloaded, Written
from .generation.plan import Planner
from .generation.preview import Previewer, TinyFile
from .memory.store import Store, check_dtype, check_memory
from .process import check_process
from .quantization.recipe import Quantization
from .request import Request

Loaded = tuple[Checkpoint, Store, Previewer]


@dataclass(frozen=True)
class Loading:
    """The arguments of `ZImage.load`."""

    source: str | Path
    quantize: int | str | None
    dtype: str | None
    loras: Sequence[str]
    memory: str
    download: bool
    revision: str | None
    keep_copy: bool
    preview_decoder: str | Path | None

    def finish(self) -> Loaded:
        """Do all of it, and return what it returns."""
        events = self.run()
        while True:
            try:
                next(events)
            except StopIteration as end:
                loaded: Loaded = end.value
                return loaded

    def run(
        self, requests: Sequence[Request] = ()
    ) -> Generator[Downloaded | Written, None, Loaded]:
        """Locate or fetch the source, judge `requests`, and make a quantized copy if one pays."""
        from .convert.copies import quantized_copy  # not needed for the import of the package
        from .hub.download import fetching

        check_process()
        if self.loras:
            raise LoraError("LoRA files cannot be loaded yet; leave loras empty")
        quantization = None if self.quantize is None else Quantization.parse(self.quantize)
        dtype = check_dtype(self.dtype)
        check_memory(self.memory)
        tiny = None if self.preview_decoder is None else TinyFile.open(self.preview_decoder)
        path = yield from fetching(self.source, download=self.download, revision=self.revision)
        checkpoint = Checkpoint.open(path)
        if tiny is not None:
            tiny.check(checkpoint)
        copy = None
        if self.quantize is not None and self.keep_copy:
            copy = quantized_copy(checkpoint, self.quantize, dtype)
        # Blocks can be streamed from the copy alone, which may not exist yet.
        is_low = copy is not None and self.memory == "low"
        store = Store(checkpoint, quantization, dtype, "staged" if is_low else self.memory)
        planner = Planner(checkpoint)
        runs = [planner.plan(request) for request in requests]
        if not is_low:
            store.check_room([run.workload for run in runs])
        if copy is None:
            return checkpoint, store, Previewer(checkpoint, store, tiny)
        checkpoint = Checkpoint.open((yield from copy.make()))
        store = Store(checkpoint, None, dtype, self.memory)
        return checkpoint, store, Previewer(checkpoint, store, tiny)
