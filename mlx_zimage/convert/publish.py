"""A conversion carried out: written to a hidden folder beside the output, and renamed at the end.

A run that is stopped leaves nothing that loads. An output that exists is replaced only if all its
files were written by a conversion.
"""

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.family import MANIFEST, family_of
from ..checks import reason
from ..errors import CheckpointError, RequestError
from ..events import Calibrated, Written
from ..files import digest, read_json, write_json
from ..hub.locate import DEMO
from ..sampling.schedule import SchedulerConfig
from ..weights.index import INDEX, PICKLES, files_of
from ..weights.tensor import Packings
from .calibrate import calibrated, remove
from .card import CARD, card
from .exports import files_for, has_configs, takes
from .plan import Conversion
from .write import write

WORKSPACE = ".part"  # ends the hidden folder's name
NEW, OLD = "new", "old"  # folders in it
WEIGHTS = (".safetensors", INDEX, ".gguf", ".onnx", *PICKLES)
QUANTIZED = "quantization_config.json"
"""A file beside config.json in which some programs repeat how they quantized a component."""
IGNORED = ".DS_Store"
"""A file that macOS puts into each folder that is looked at."""


def convert_checkpoint(
    conversion: Conversion, out: Path, *, force: bool = False, title: str | None = None
) -> Generator[Written | Calibrated, None, None]:
    """Write the components that a conversion names, as events.

    `force` replaces an older output. `title` is what the model card calls the result: a repo id
    where it will be uploaded, by default the folder's name.
    """
    checkpoint, out = conversion.checkpoint, out.resolve()
    try:
        for source in (checkpoint.path, checkpoint.home, DEMO):
            _check_apart(source, out)
        _check_replaceable(out, force)
        with _workspace(out) as work:
            if conversion.calibration is not None:
                conversion = yield from calibrated(conversion, out)
            _copy_files(checkpoint.home, work, conversion)
            for name, packings in conversion.packings.items():
                yield from _write_component(conversion, name, work)
                if has_configs(conversion.target):
                    config = checkpoint.home / name / "config.json"
                    _write_config(config, work / name, conversion.dtype, packings)
            if conversion.is_complete:  # prove that the result can be opened
                Checkpoint.open(work, None if has_configs(conversion.target) else checkpoint.home)
            _write_manifest(work, conversion, title or out.name)
            _publish(work, out)
            if conversion.calibration is not None:
                remove(out)
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {reason(error)}") from error


def _write_component(conversion: Conversion, name: str, work: Path) -> Iterator[Written]:
    items = conversion.outputs(name)
    total, done = sum(item.size for item in items), 0
    (work / name).mkdir(parents=True, exist_ok=True)
    files = files_for(conversion.target, name, conversion.packings[name])
    for size in write(work / name, files, items):
        done += size
        yield Written(name, done, total)


def _write_config(config: Path, folder: Path, dtype: str, packings: Packings) -> None:
    """Write a component's config with its weights' type and how they are quantized."""
    data = read_json(config)
    data |= dict.fromkeys([key for key in ("torch_dtype", "dtype") if key in data], dtype)
    for name in ("quantization", "quantization_config"):
        data.pop(name, None)
    if packings:
        block = describe(packings)
        data |= {"quantization": block, "quantization_config": block}
    write_json(folder / "config.json", data)


def describe(packings: Packings) -> dict[str, Any]:
    """Return packings as mlx-lm writes them: that of most layers, then the layers that differ."""
    (usual, _), *_ = Counter(packings.values()).most_common(1)
    others = {path: packing.block for path, packing in packings.items() if packing != usual}
    return usual.block | others


def origin(source: Path) -> tuple[str, str | None]:
    """Return a source's name, and its revision if it lies in the Hub's cache."""
    for place in (source, *source.parents):
        if place.parent.name == "snapshots":
            return place.parents[1].name, place.name
    return source.resolve().name, None


def _copy_files(home: Path, work: Path, conversion: Conversion) -> None:
    for file in other_files(home):
        name = file.relative_to(home)
        is_wanted = conversion.is_complete or name.parts[0] in conversion.packings
        if is_wanted and takes(conversion.target, name):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, work / name)


def other_files(home: Path) -> list[Path]:
    """Return the files of a checkpoint that do not describe or hold its weights."""
    others = (MANIFEST, QUANTIZED)
    return [f for f in files_of(home) if not f.name.endswith(WEIGHTS) and f.name not in others]


def _write_manifest(work: Path, conversion: Conversion, title: str) -> None:
    """Write the model card and the manifest, which lists it with all other files."""
    from importlib.metadata import version  # slow to import

    checkpoint = conversion.checkpoint
    scheduler = SchedulerConfig.from_dict(read_json(checkpoint.scheduler_file))
    name, revision = origin(checkpoint.path)
    recipe: Mapping[str, Any] = {
        component: describe(packings) if packings else None
        for component, packings in conversion.packings.items()
    }
    merged = [{**lora.to_dict(), "source": lora.name} for lora in conversion.loras]
    content: dict[str, Any] = {
        "source": name,
        "revision": revision,
        "model": family_of(checkpoint, scheduler).name,
        "dtype": conversion.dtype,
        "recipe": recipe,
        "calibration": conversion.calibration and conversion.calibration.described,
        "loras": [*_merged_before(checkpoint), *merged],
        "target": conversion.target and conversion.target.name,
        "versions": {package: version(package) for package in ("mlx", "mlx-zimage")},
    }
    sizes = {component: conversion.size(component) for component in conversion.components}
    text = card(checkpoint, content, conversion.packings, sizes, title)
    (work / CARD).write_text(text, "utf-8")
    content["files"] = {
        str(file.relative_to(work)): {"size": file.stat().st_size, "sha256": digest(file)}
        for file in sorted(work.rglob("*"))
        if file.is_file()
    }
    write_json(work / MANIFEST, content)


def _merged_before(checkpoint: Checkpoint) -> list[Any]:
    """Return the LoRAs that the source was converted with."""
    file = checkpoint.path / MANIFEST
    listed = read_json(file).get("loras") if file.is_file() else None
    return listed if isinstance(listed, list) else []


def _check_apart(source: Path, out: Path) -> None:
    source = source.resolve()
    if _is_in(out, source) or _is_in(source, out):
        raise RequestError(f"the output must not overlap {source}; {out} does")


def _check_replaceable(out: Path, force: bool) -> None:
    """Refuse an output that exists, unless it may be and can be replaced."""
    if not out.exists():
        return
    if not force:
        raise RequestError(f"{out} exists; name another folder, or replace it with force=True")
    if not out.is_dir():
        raise RequestError(f"force=True replaces a converted checkpoint, and {out} is a file")
    listed = read_json(out / MANIFEST).get("files") if (out / MANIFEST).is_file() else None
    known = {MANIFEST, *(listed if isinstance(listed, dict) else ())}
    for file in sorted(path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()):
        name = file.relative_to(out).as_posix()
        if name not in known and file.name != IGNORED:
            raise RequestError(
                f"force=True would delete {file}, which no conversion has written; "
                "move it away, or name another folder"
            )


def _is_in(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or lies in it, however the disk spells the two."""
    above = [place for place in (path, *path.parents) if place.exists()]
    return folder.exists() and any(place.samefile(folder) for place in above)


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """Lock and yield a hidden folder beside `out`, which is removed afterwards."""
    folder = out.with_name(f".{out.name}{WORKSPACE}")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"another run is writing {out}; wait for it") from None
        try:
            _restore(folder / OLD, out)
            for remnant in folder.iterdir():  # of a run that was killed
                shutil.rmtree(remnant)
            work = folder / NEW
            work.mkdir()
            yield work
        finally:
            _restore(folder / OLD, out)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def is_busy(workspace: Path) -> bool:
    """Return whether a run is writing into a workspace."""
    lock = os.open(workspace, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _publish(work: Path, out: Path) -> None:
    """Move the result into place. What stood there waits in the workspace, and goes with it."""
    if out.exists():
        out.rename(work.with_name(OLD))
    work.rename(out)


def _restore(old: Path, out: Path) -> None:
    """Move the old output back if a run was stopped between the two renames."""
    if old.exists() and not out.exists():
        old.rename(out)
