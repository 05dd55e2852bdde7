"""The LoRAs of a loaded model: read once, and put together whenever others are chosen."""

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.checkpoint import Checkpoint
from ..checks import path_text
from ..errors import LoraError
from ..events import Downloaded
from .library import Library
from .source import Lora, read_loras

if TYPE_CHECKING:  # what reads files is imported when there is one
    import mlx.core as mx

    from .adapter import Adapter
    from .attach import Attached
    from .targets import Targets

Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AppliedLora:
    """A LoRA that a model draws with, and what it changes."""

    source: str  # as it was named
    scale: float
    family: str  # the program or the layout that the file comes from
    kinds: tuple[str, ...]  # of its changes: LoRA, LoKr, DoRA, ...
    hit: dict[str, tuple[int, int]]  # by kind of module: how many it changes, of how many
    skipped: tuple[str, ...]  # parts of the file that have no effect, and why
    ranks: tuple[int, ...]
    trigger_words: tuple[str, ...]
    sha256: str
    nbytes: int  # in memory

    @classmethod
    def of(cls, lora: Lora, adapter: "Adapter") -> "AppliedLora":
        return cls(
            str(lora.source),
            lora.scale,
            adapter.family,
            adapter.kinds,
            dict(adapter.hit),
            adapter.skipped,
            adapter.ranks,
            adapter.metadata.trigger_words,
            adapter.identity,
            adapter.nbytes,
        )

    @property
    def name(self) -> str:
        """The file's name without its folder and ending."""
        return Lora(self.source).name

    def to_dict(self) -> dict[str, Any]:
        """Return what a picture's metadata says of it."""
        return {"source": self.source, "scale": self.scale, "sha256": self.sha256}


@dataclass(frozen=True)
class Chosen:
    """LoRAs that act together."""

    applied: tuple[AppliedLora, ...] = ()
    attached: "Attached | None" = None

    def changes(self, component: str) -> bool:
        """Return whether they change a component at all."""
        return self.attached is not None and self.attached.changes(component)

    def attach(self, component: str, module: Any) -> Any:
        """Return a component's module with all changes; `module` stays as it is."""
        return module if self.attached is None else self.attached.attach(component, module)

    def key(self, component: str) -> str:
        """Return a text that differs wherever they change a component differently."""
        if not self.changes(component):
            return ""
        return " ".join(f"{lora.sha256}:{lora.scale!r}" for lora in self.applied)

    def nbytes(self, dtypes: "Mapping[str, mx.Dtype]") -> int:
        """Return the bytes that they take in a model of components of these types."""
        return 0 if self.attached is None else self.attached.nbytes(dtypes)

    def clear(self) -> None:
        """Free what was computed for the weights that ran."""
        if self.attached is not None:
            self.attached.clear()


class Loras:
    """The LoRAs of one checkpoint. Those that act, and acted before, stay in memory."""

    def __init__(self, checkpoint: Checkpoint, library: Library | None = None):
        self._checkpoint, self._library = checkpoint, library or Library.open()
        self._targets: Targets | None = None
        self._read: dict[Path, tuple[Stamp, Adapter]] = {}
        self._before: set[Path] = set()
        self._lock = threading.Lock()

    def choosing(
        self, loras: Sequence[str | Path | Lora], *, download: bool = False
    ) -> Generator[Downloaded, None, Chosen]:
        """Return the LoRAs, ready to act, or raise what is wrong with one of them."""
        opened = yield from self.opening(loras, download=download)
        if not opened:
            return Chosen()
        from .attach import Attached

        # Sorted, so that their order has no effect on rounding either.
        ordered = sorted(opened, key=lambda pair: (pair[1].identity, pair[0].scale))
        attached = Attached([(adapter.changes, lora.scale) for lora, adapter in ordered])
        return Chosen(tuple(AppliedLora.of(*pair) for pair in opened), attached)

    def opening(
        self, loras: Sequence[str | Path | Lora], *, download: bool = False
    ) -> Generator[Downloaded, None, list[tuple[Lora, "Adapter"]]]:
        """Return the LoRAs with their files read, or raise what is wrong with one of them."""
        asked = read_loras(loras)
        paths = []
        for lora in asked:
            paths.append((yield from self._library.locating(lora.source, download=download)))
        with self._lock:
            adapters = [self._adapter(path) for path in paths]
            _check_different(asked, adapters)
            recent = {*paths} | self._before
            self._read = {path: read for path, read in self._read.items() if path in recent}
            self._before = {*paths}
        return list(zip(asked, adapters, strict=True))

    def clear(self) -> None:
        """Free the files that were read. Those that act stay."""
        with self._lock:
            self._read.clear()

    def _adapter(self, path: Path) -> "Adapter":
        from .adapter import Adapter
        from .file import lora_path
        from .targets import targets

        stamp = tuple(_stamps(lora_path(path)))
        known, adapter = self._read.get(path, ((), None))
        if adapter is None or known != stamp:
            if self._targets is None:
                self._targets = targets(self._checkpoint)
            adapter = Adapter.open(path, self._targets)
            self._read[path] = stamp, adapter
        return adapter


def _stamps(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the time and the size of each file of a LoRA."""
    from .file import CONFIG, WEIGHTS, lora_errors

    with lora_errors(path):
        for file in [path / CONFIG, path / WEIGHTS] if path.is_dir() else [path]:
            if file.exists():
                state = file.stat()
                yield state.st_mtime_ns, state.st_size


def _check_different(loras: Sequence[Lora], adapters: Sequence["Adapter"]) -> None:
    places: dict[str, Lora] = {}
    for lora, adapter in zip(loras, adapters, strict=True):
        if adapter.identity in places:
            other = places[adapter.identity]
            names = {path_text(other.source), path_text(lora.source)}
            verb = "are the same LoRA" if len(names) > 1 else "is listed twice"
            raise LoraError(
                f"{' and '.join(sorted(names))} {verb}; name it once, with one scale "
                f"({other.scale + lora.scale:g} for both together)"
            )
        places[adapter.identity] = lora
