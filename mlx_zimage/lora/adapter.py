"""An adapter: a LoRA's file as changes of a model's modules, by their official names."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks import excerpt, path_text
from ..errors import LoraError
from .build import build, read
from .file import LoraFile, lora_errors, lora_path
from .forms import Change, Form, Glora, Hadamard, Kronecker, LowRank, Magnitude, VectorChange
from .group import Group, Values
from .info import LoraInfo
from .judge import judge
from .metadata import Metadata
from .readers import Reader
from .same import are_same
from .targets import Targets

Changes = Mapping[str, Mapping[str, Change | VectorChange]]
"""By component and official module path."""
SCALED = (LowRank, Hadamard, Kronecker, Glora)
"""Forms with a scale."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA that fits a model: its changes as plain data, and the facts about it."""

    info: LoraInfo
    changes: Changes

    @classmethod
    def open(cls, path: str | Path, targets: Targets) -> "Adapter":
        """Read a file or a folder of PEFT; the header is judged before a weight is read."""
        file = LoraFile.open(lora_path(path))
        judged = judge(file, targets)
        with lora_errors(file.path):
            values = read(judged.groups)
        changes, doubles = _settled(file, judged.groups, values)
        forms = [*_forms(changes)]
        dtypes = Counter(entry.dtype for entry in file.entries.values())
        info = LoraInfo(
            path=file.path,
            family=judged.family,
            kinds=_kinds(judged.groups),
            ranks=tuple(sorted({form.rank for form in forms if form.rank})),
            alphas=tuple(sorted({v.alpha for v in values if v.alpha is not None})),
            scales=tuple(sorted({form.scale for form in forms if isinstance(form, SCALED)})),
            hit=_hit(changes, targets),
            metadata=Metadata.read(file.texts),
            dtypes=tuple(name for name, _ in dtypes.most_common()),
            size=file.size,
            skipped=(*(f"{name}: not in this model" for name in judged.skipped), *doubles),
            sha256=file.identity(),
        )
        return cls(info, changes)

    @property
    def path(self) -> Path:
        return self.info.path

    @property
    def family(self) -> str:
        """The program that wrote the file, or whose layout it has."""
        return self.info.family

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its changes: LoRA, LoKr, DoRA, ..."""
        return self.info.kinds

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.info.ranks

    @property
    def hit(self) -> Mapping[str, tuple[int, int]]:
        """By kind of module: how many it changes, of how many."""
        return self.info.hit

    @property
    def metadata(self) -> Metadata:
        return self.info.metadata

    @property
    def skipped(self) -> tuple[str, ...]:
        """The parts of the file without effect, each with the reason."""
        return self.info.skipped

    @property
    def identity(self) -> str:
        """The SHA-256 of the file."""
        return self.info.sha256

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers in memory."""
        return sum(change.nbytes for inner in self.changes.values() for change in inner.values())


def _forms(changes: Changes) -> Iterator[Form]:
    """Yield the forms of all changes; of DoRA, the update inside."""
    for change in (change for inner in changes.values() for change in inner.values()):
        form = change.form if isinstance(change, Change) else None
        if form is not None:
            yield form.inner if isinstance(form, Magnitude) else form


def _settled(
    file: LoraFile, groups: Sequence[tuple[Group, Reader | None]], values: Sequence[Values]
) -> tuple[Changes, list[str]]:
    """Return one change for each module, and the names whose update is there under another."""
    changes: dict[str, dict[str, Change | VectorChange]] = defaultdict(dict)
    names: dict[tuple[str, str], str] = {}
    doubles: dict[str, str] = {}
    pairs = zip(groups, values, strict=True)
    for (group, reader), numbers in sorted(pairs, key=lambda p: not p[0][0].named.is_official):
        for target, change in build(group, reader, numbers):
            inner, place = changes[target.component], (target.component, target.path)
            if place not in names:
                inner[target.path], names[place] = change, group.module
                continue
            if not are_same(inner[target.path], change):
                raise LoraError(
                    f"{path_text(file.path)} changes {target.path} twice, differently: as "
                    f"{excerpt(names[place], 120)} and {excerpt(group.module, 120)}; "
                    "remove one of the two from the file"
                )
            doubles[group.module] = names[place]
    return changes, [f"{name}: the same update as {other}" for name, other in doubles.items()]


def _kinds(groups: Sequence[tuple[Group, Reader | None]]) -> tuple[str, ...]:
    """Return the kinds of changes, the most frequent first."""
    kinds: Counter[str] = Counter()
    for group, reader in groups:
        if not group.is_matrix:
            kinds["norm"] += 1
        elif reader is not None:
            is_dora = "magnitude" in group.parts or "dora_scale" in group.parts
            is_butterfly = "oft_blocks" in group.parts and len(group.parts["oft_blocks"].shape) == 4
            kind = "BOFT" if is_butterfly else reader.kind
            kinds[
                f"DoRA on {kind}" if is_dora and kind != "LoRA" else "DoRA" if is_dora else kind
            ] += 1
        if "up_bias" in group.parts or "diff_b" in group.parts:
            kinds["bias"] += 1
    return tuple(kind for kind, _ in kinds.most_common())


def _hit(changes: Changes, targets: Targets) -> dict[str, tuple[int, int]]:
    paths = [(component, path) for component, inner in changes.items() for path in inner]
    hit = Counter(targets.modules[component][path].kind for component, path in paths)
    return {kind: (hit[kind], count) for kind, count in targets.counts.items() if hit[kind]}
