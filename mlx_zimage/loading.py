"""From a source to an opened checkpoint with its store: located, fetched, copied."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from .checkpoint.checkpoint import Checkpoint
from .dtypes import Dtype
from .events import Downloaded, Written, finish
from .generation.plan import Planner
from .generation.preview import Previewer, TinyFile
from .hub.locate import local
from .lora.library import Library, is_on_hub
from .lora.loras import Loras
from .lora.source import Lora, read_loras
from .memory.store import Memory, Store, check_dtype, check_memory
from .process import check_process
from .quantization.recipe import Quantization, Quantize
from .request import Request

Loaded = tuple[Checkpoint, Store, int | str | None, str, Previewer, Loras]
"""The arguments of `ZImage`."""


class LoadOptions(TypedDict, total=False):
    """The options of `ZImage.load`, for `ZImage.loading`."""

    quantize: Quantize | None
    dtype: Dtype | None
    loras: Sequence[str | Path | Lora]
    lora_folder: str | Path | None
    memory: Memory
    download: bool
    revision: str | None
    keep_copy: bool
    preview_decoder: str | Path | None


@dataclass(frozen=True)
class Loading:
    """The arguments of `ZImage.load`."""

    source: str | Path
    quantize: int | str | None = None
    dtype: str | None = None
    loras: Sequence[str | Path | Lora] = ()
    lora_folder: str | Path | None = None
    memory: str = "auto"
    download: bool = False
    revision: str | None = None
    keep_copy: bool = True
    preview_decoder: str | Path | None = None

    def finish(self) -> Loaded:
        """Do all of it, and return what it returns."""
        return finish(self.run())

    def run(
        self, requests: Sequence[Request] = ()
    ) -> Generator[Downloaded | Written, None, Loaded]:
        """Locate or fetch the source, judge `requests`, and make a quantized copy if one pays."""
        from .convert.copies import quantized_copy  # not needed for the import of the package
        from .hub.download import fetching

        check_process()
        library, loras = Library.open(self.lora_folder), read_loras(self.loras)
        quantization = None if self.quantize is None else Quantization.parse(self.quantize)
        dtype = check_dtype(self.dtype)
        check_memory(self.memory)
        tiny = None if self.preview_decoder is None else TinyFile.open(self.preview_decoder)
        # Where LoRAs come from the Hub, `download` may be meant for them alone.
        for_loras = is_on_hub(library, loras) and local(self.source) is not None
        download = self.download and not for_loras
        path = yield from fetching(self.source, download=download, revision=self.revision)
        checkpoint = Checkpoint.open(path)
        shelf = Loras(checkpoint, library)
        chosen = yield from shelf.choosing(loras, download=self.download)
        if tiny is not None:
            tiny.check(checkpoint)
        copy = None
        if self.quantize is not None and self.keep_copy:
            copy = quantized_copy(checkpoint, self.quantize, dtype)
        # Blocks can be streamed from the copy alone, which may not exist yet.
        is_low = copy is not None and self.memory == "low"
        store = Store(checkpoint, quantization, dtype, "staged" if is_low else self.memory)
        store.put(chosen)
        planner = Planner(checkpoint)
        runs = [planner.plan(request) for request in requests]
        if not is_low:
            store.check_room([run.workload for run in runs])
        if copy is not None:
            checkpoint = Checkpoint.open((yield from copy.make()))
            store = Store(checkpoint, None, dtype, self.memory)
            store.put(chosen)
        previewer = Previewer(checkpoint, store, tiny)
        return checkpoint, store, self.quantize, str(self.source), previewer, shelf
