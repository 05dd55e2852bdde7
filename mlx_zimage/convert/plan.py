"""A checkpoint in another precision: the official layout, quantized or not.

Written to a hidden sibling and renamed at the end, so a broken run leaves nothing that loads. Some
rows of one tensor are in memory at a time.
"""

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..errors import CheckpointError, RequestError
from ..files import digest, read_json, write_json
from ..memory.store import DTYPES
from ..quantization.recipe import Packings, Quantization, stored
from ..weights.safetensors import PICKLES, files_of, find_weights, tensors
from ..weights.tensor import PARTS, Part, Tensor
from .write import Output, outputs, write

PART = ".part"  # ends the workspace's name
NEW, OLD = "new", "old"  # within it
MANIFEST = "mlx_zimage.json"
STEMS = {"text_encoder": "model"}  # of weight files; else diffusers' own
STEM = "diffusion_pytorch_model"
WEIGHTS = (".safetensors", ".safetensors.index.json", ".gguf", ".onnx", *PICKLES)


@dataclass(frozen=True)
class Written:
    """So many bytes of a part are written."""

    part: Part
    done: int
    total: int


@dataclass(frozen=True)
class Plan:
    """What will be written, and how large it is."""

    checkpoint: Checkpoint
    dtype: str
    packings: dict[Part, Packings]

    @classmethod
    def of(
        cls,
        source: Path,
        *,
        quantize: int | str | None = None,
        text_encoder: int | str | None = None,
        group_size: int | None = None,
        dtype: str = "bfloat16",
        only: str | None = None,
        base: str | Path | None = None,
        beside: Sequence[Path] = (),
    ) -> "Plan":
        """`text_encoder`: how it is quantized, where it is not as the transformer is."""
        if dtype not in DTYPES:
            raise RequestError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        if only is not None and only not in PARTS:
            raise RequestError(f"only must be one of {', '.join(PARTS)}, not {only!r}")
        asked: dict[Part, int | str | None] = {
            "transformer": quantize,
            "text_encoder": quantize if text_encoder is None else text_encoder,
            "vae": None,
        }
        values = {asked[part] for part in PARTS if only in (None, part)} - {None}
        if unused := {quantize, text_encoder} - {None} - values:
            raise RequestError(f"quantizing to {unused.pop()!r} has no effect on the {only} alone")
        if group_size is not None and not values:
            raise RequestError("a group size is for quantizing; say how many bits as well")
        how = {v: Quantization.parse(v, group_size) for v in values if v is not None}
        checkpoint = Checkpoint.open(source, base, beside)  # a broken one fails here
        chosen: dict[Part, Packings] = {}
        for part in [part for part in PARTS if only in (None, part)]:
            found, value = checkpoint.weights[part], asked[part]
            chosen[part] = stored(found) if value is None else how[value].choose(part, found)
        return cls(checkpoint, dtype, chosen)

    def tensors(self, part: Part) -> dict[str, Tensor]:
        return self.checkpoint.weights[part]

    def outputs(self, part: Part) -> list[Output]:
        return outputs(self.tensors(part), self.packings[part], DTYPES[self.dtype])

    def size(self, part: Part) -> int:
        return sum(output.size for output in self.outputs(part))

    def count(self, part: Part) -> int:
        return sum(tensor.count for tensor in self.tensors(part).values())

    @property
    def total(self) -> int:
        return sum(self.size(part) for part in self.packings)

    @property
    def is_stored(self) -> bool:
        """What is quantized is so in the source already."""
        return all(
            packings == stored(self.tensors(part)) for part, packings in self.packings.items()
        )


def convert(plan: Plan, out: Path, *, force: bool = False) -> Generator[Written, None, None]:
    """Write the checkpoint, or the part of it, that the plan names."""
    source, home, out = plan.checkpoint.path, plan.checkpoint.home, out.resolve()
    try:
        _check_place(source, out, force)
        _check_place(home, out, force)
        with _workspace(out) as work:
            _copy_files(home, work, plan)
            for part, packings in plan.packings.items():
                yield from _write_part(plan, part, work)
                _write_config(home / part / "config.json", work / part, plan.dtype, packings)
            if len(plan.packings) == len(PARTS):
                Checkpoint.open(work)  # what is published can be opened
            _write_manifest(source, work, plan)
            _publish(work, out)
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error}") from error


def verify(folder: Path) -> Generator[str, None, None]:
    """Files against the manifest's hashes, then shapes, then every number: each name when done."""
    said = read_json(folder / MANIFEST).get("files")
    if not isinstance(said, dict):
        raise CheckpointError(f"{folder / MANIFEST} lists no files")
    for name, entry in sorted(said.items()):
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{folder} lacks {name}, which {MANIFEST} lists")
        if not isinstance(entry, dict) or digest(file) != entry.get("sha256"):
            raise CheckpointError(f"{file} is not the file that was written; convert again")
        yield name
    for part, written in _written_parts(folder).items():
        for tensor in written.values():
            for start, stop in tensor.spans():
                if not mx.isfinite(tensor.rows(start, stop)).all().item():
                    raise CheckpointError(f"{tensor.where} holds numbers that are not finite")
        yield part


def _written_parts(folder: Path) -> dict[Part, dict[str, Tensor]]:
    """With the shapes that a model has, where all of it was written."""
    there = [part for part in PARTS if (folder / part).is_dir()]
    if len(there) == len(PARTS):
        return Checkpoint.open(folder).weights
    return {
        part: tensors(find_weights(folder / part), read_json(folder / part / "config.json"))
        for part in there
    }


def _write_part(plan: Plan, part: Part, work: Path) -> Iterator[Written]:
    items = plan.outputs(part)
    total, done = sum(item.size for item in items), 0
    (work / part).mkdir(parents=True, exist_ok=True)
    for size in write(work / part, STEMS.get(part, STEM), items):
        done += size
        yield Written(part, done, total)


def _write_config(config: Path, folder: Path, dtype: str, packings: Packings) -> None:
    """With the type of the weights where transformers names it, and how they are quantized."""
    data = read_json(config)
    data |= dict.fromkeys([key for key in ("torch_dtype", "dtype") if key in data], dtype)
    for name in ("quantization", "quantization_config"):
        data.pop(name, None)
    if packings:
        block = describe(packings)
        data |= {"quantization": block, "quantization_config": block}
    write_json(folder / "config.json", data)


def describe(packings: Packings) -> dict[str, Any]:
    """As mlx-lm writes it: how most layers are quantized, then those that are otherwise."""
    (usual, _), *_ = Counter(packings.values()).most_common(1)
    others = {path: asdict(packing) for path, packing in packings.items() if packing != usual}
    return asdict(usual) | others


def origin(source: Path) -> tuple[str, str | None]:
    """A name for it, and its revision where it comes from the Hub's cache."""
    for place in (source, *source.parents):
        if place.parent.name == "snapshots":
            return place.parents[1].name, place.name
    return source.resolve().name, None


def _copy_files(source: Path, work: Path, plan: Plan) -> None:
    """All that is neither weights nor written anew."""
    whole = set(plan.packings) == set(PARTS)
    for file in copied(source):
        name = file.relative_to(source)
        if whole or name.parts[0] in plan.packings:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, work / name)


def copied(home: Path) -> list[Path]:
    """What lies beside the weights."""
    return [f for f in files_of(home) if not f.name.endswith(WEIGHTS) and f.name != MANIFEST]


def _write_manifest(source: Path, work: Path, plan: Plan) -> None:
    files = {
        str(file.relative_to(work)): {"size": file.stat().st_size, "sha256": digest(file)}
        for file in sorted(work.rglob("*"))
        if file.is_file()
    }
    recipe: Mapping[str, Any] = {
        part: describe(packings) if packings else None for part, packings in plan.packings.items()
    }
    name, revision = origin(source)
    content = {
        "source": name,
        "revision": revision,
        "dtype": plan.dtype,
        "recipe": recipe,
        "versions": {name: version(name) for name in ("mlx", "mlx-zimage")},
        "files": files,
    }
    write_json(work / MANIFEST, content)


def _check_place(source: Path, out: Path, force: bool) -> None:
    source = source.resolve()
    if _is_in(out, source) or _is_in(source, out):
        raise RequestError(f"the output must lie apart from the source {source}, not at {out}")
    if not out.exists():
        return
    if not force:
        raise RequestError(f"{out} exists already; name another folder, or pass --force")
    if not out.is_dir() or (any(out.iterdir()) and not _is_checkpoint(out)):
        raise RequestError(f"--force replaces only a checkpoint, and {out} is none; name another")


def _is_in(path: Path, folder: Path) -> bool:
    """The same, or below it, however a disk spells them."""
    above = [place for place in (path, *path.parents) if place.exists()]
    return folder.exists() and any(place.samefile(folder) for place in above)


def _is_checkpoint(folder: Path) -> bool:
    parts = any((folder / part / "config.json").is_file() for part in PARTS)
    return parts or (folder / MANIFEST).is_file()


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A hidden sibling of `out` that is gone afterwards; locked, so that of two runs one fails."""
    folder = out.with_name(f".{out.name}{PART}")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"another run is writing {out}; wait for it") from None
        try:
            _put_back(folder / OLD, out)
            for left in folder.iterdir():  # by a run that was killed
                shutil.rmtree(left)
            work = folder / NEW
            work.mkdir()
            yield work
        finally:
            _put_back(folder / OLD, out)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def is_busy(workspace: Path) -> bool:
    """A run is at work in it."""
    lock = os.open(workspace, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _publish(work: Path, out: Path) -> None:
    """Into place. What stood there waits in the workspace, and goes with it."""
    if out.exists():
        out.rename(work.with_name(OLD))
    work.rename(out)


def _put_back(old: Path, out: Path) -> None:
    """The old output, where a run was stopped between two renames."""
    if old.exists() and not out.exists():
        old.rename(out)
