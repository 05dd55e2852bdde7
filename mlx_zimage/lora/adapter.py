"""An adapter: a LoRA's file as changes of a model's modules, by their official names."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks import excerpt, path_text
from ..errors import LoraError
from .build import build, read
from .file import LoraFile, lora_errors, lora_path
from .forms import Change, VectorChange
from .group import Group, Values
from .judge import judge
from .metadata import Metadata
from .readers import Reader
from .same import are_same
from .targets import Targets

Changes = Mapping[str, Mapping[str, Change | VectorChange]]
"""By component and official module path."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA that fits a model: what it changes, as plain data."""

    path: Path
    family: str  # the program or layout it comes from
    kinds: tuple[str, ...]  # of its changes: LoRA, LoKr, DoRA, ...
    changes: Changes
    metadata: Metadata
    ranks: tuple[int, ...]  # all that occur, from the least
    alphas: tuple[float, ...]  # that are stored and have an effect
    dtypes: tuple[str, ...]  # as the file names them, the most frequent first
    hit: Mapping[str, tuple[int, int]]  # by kind of module: how many it changes, of how many
    skipped: tuple[str, ...]  # parts of the file that have no effect, and why
    size: int  # bytes of its files
    identity: str  # the SHA-256 of the file

    @classmethod
    def open(cls, path: str | Path, targets: Targets) -> "Adapter":
        """Read a file or a folder of PEFT; the header is judged before a weight is read."""
        file = LoraFile.open(lora_path(path))
        judged = judge(file, targets)
        with lora_errors(file.path):
            values = read(file, judged.groups)
        changes, doubles = _settled(file, judged.groups, values)
        forms = [
            c.form for inner in changes.values() for c in inner.values() if isinstance(c, Change)
        ]
        return cls(
            file.path,
            judged.family,
            _kinds(judged.groups),
            changes,
            Metadata.read(file.texts),
            tuple(sorted({form.rank for form in forms if form is not None and form.rank})),
            tuple(sorted({v.alpha for v in values if v.alpha is not None})),
            tuple(
                name for name, _ in Counter(e.dtype for e in file.entries.values()).most_common()
            ),
            _hit(changes, targets),
            (*(f"{name} (no such module)" for name in judged.skipped), *doubles),
            file.file.stat().st_size,
            file.identity(),
        )

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers in memory."""
        return sum(change.nbytes for inner in self.changes.values() for change in inner.values())


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
    return changes, [f"{name} (the same as {other})" for name, other in doubles.items()]


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
