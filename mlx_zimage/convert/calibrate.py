"""Calibration: the blocks' matrices rounded by what they compute with, block by block.

Each block's inputs are those of the unquantized model, so that no block depends on another's
rounding. A block that is done lies in a file of its own, in a folder beside the output; a run that
was killed goes on from those files, to the same bytes.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .. import device
from ..checkpoint.checkpoint import StoredComponent
from ..checkpoint.streaming import Streamed
from ..dtypes import DTYPES, default_dtype
from ..errors import CheckpointError, OutOfMemoryError
from ..events import Calibrated
from ..quantization.block import calibrate_block, label, record
from ..quantization.mixed import Option, allocate, best_of, size_of
from ..weights.official import from_entries
from ..weights.packing import Packing
from ..weights.safetensors import read_header
from ..weights.tensor import Packings, Tensor
from .calibration import Calibration
from .plan import Conversion
from .samples import Course, Sample, dtype_of, load_samples, save_samples, tokenize
from .walk import Forward, Visit, encode, pass_through, run

FORMAT = 1
"""A number that changes when the same request comes to write other bytes."""
PROCESS = 230_000_000
"""Bytes of Python with its libraries, and of what a run holds beside the large arrays."""
CAPTION = 64  # tokens that each is counted as
SUFFIX = ".calibration"
SAMPLES = "samples.safetensors"
ENCODER, TRANSFORMER = "text_encoder", "transformer"


def folder_of(out: Path) -> Path:
    """Return the folder that keeps the finished blocks of an output."""
    return out.with_name(f".{out.name}{SUFFIX}")


def calibrated(conversion: Conversion, out: Path) -> Generator[Calibrated, None, Conversion]:
    """Calibrate, and return the conversion with the rounded weights in the place of its own."""
    calibration = conversion.calibration
    assert calibration is not None
    folder = folder_of(out)
    check_resources(conversion, calibration, out)
    _prepare(folder, conversion, calibration)
    job = _Job(conversion, calibration, folder)
    captions, samples = yield from job.samples()
    yield from job.calibrate_transformer(captions, samples)
    return job.result()


def block_of(stored: StoredComponent, path: str) -> str:
    """Return the block that a layer is in: a list of blocks and a number."""
    parent = next(block for block in stored.component.blocks if path.startswith(f"{block}."))
    return f"{parent}.{path.removeprefix(f'{parent}.').partition('.')[0]}"


def remove(out: Path) -> None:
    """Remove the finished blocks of an output, once it is written."""
    shutil.rmtree(folder_of(out), ignore_errors=True)


def _prepare(folder: Path, conversion: Conversion, calibration: Calibration) -> None:
    """Make the folder, and empty it if its blocks are of another request."""
    from importlib.metadata import version  # slow to import

    folder.mkdir(parents=True, exist_ok=True)
    listed = {
        name: {path: [vars(p) for p in packings] for path, packings in layers.items()}
        for name, layers in calibration.candidates.items()
    }
    request = [FORMAT, conversion.checkpoint.identity, listed, list(calibration.prompts)]
    request += [
        [lora.to_dict() for lora in conversion.loras],
        conversion.dtype,
        default_dtype(),
        device.kind(),
        version("mlx"),
    ]
    request += [[lora.sha256, lora.scale] for lora in conversion.loras]
    wanted = sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    file = folder / "request"
    if not file.is_file() or file.read_text("utf-8") != wanted:
        for remnant in folder.iterdir():
            remnant.unlink()
        file.write_text(wanted, "utf-8")


def check_resources(conversion: Conversion, calibration: Calibration, out: Path) -> None:
    """Refuse a calibration that the disk or the memory has no room for, before any work."""
    size = sum(_packed(conversion, calibration).values())
    needed, free = size + conversion.total, shutil.disk_usage(out.parent).free
    if needed > free:
        raise CheckpointError(
            f"calibrating takes {needed / 1e9:.1f} GB in {out.parent}, half of it until the end, "
            f"and {free / 1e9:.1f} GB are free; make room, or name another place"
        )
    memory, available = peak(conversion), device.memory()
    if memory > available:
        raise OutOfMemoryError(
            f"calibrating holds about {memory / 1e9:.1f} GB at once, and this device has "
            f"{available / 1e9:.1f} GB; leave --calibrate out, or give fewer prompts"
        )


def peak(conversion: Conversion) -> int:
    """Return about the most bytes held at once: while H is added up, or while it is factorized."""
    checkpoint, calibration = conversion.checkpoint, conversion.calibration
    assert calibration is not None
    course = Course(checkpoint, len(calibration.prompts))
    tokens, longest = 0, 0
    for prompt in range(course.count):
        height, columns = course.size(prompt)
        length = height * columns // 4 + CAPTION
        tokens += len(course.sampled(prompt)) * length
        longest = max(longest, length)
    config, itemsize = checkpoint.transformer, DTYPES[default_dtype()].size
    inputs = tokens * config.dim * itemsize
    block = (4 * config.dim**2 + 3 * config.dim * config.hidden_dim) * itemsize
    widest = 4 * max(config.dim, config.hidden_dim) ** 2  # H in float32
    sums = 3 * 4 * config.dim**2 + widest
    adding = block + sums + longest * (4 * config.dim + 3 * config.hidden_dim) * itemsize
    if device.kind() != "cpu":
        adding += widest  # a GPU adds to H in new memory
    # H, half of it in float64, the factor, and pieces with freed memory that malloc still has
    factorizing = 4 * widest + max(_packed(conversion, calibration).values(), default=0)
    return PROCESS + inputs + max(adding, factorizing)


def _packed(conversion: Conversion, calibration: Calibration) -> dict[str, int]:
    """Return the bytes of each block's candidates."""
    sizes: dict[str, int] = defaultdict(int)
    for name, layers in calibration.candidates.items():
        tensors, stored = conversion.tensors(name), conversion.checkpoint[name]
        for path, packings in layers.items():
            tensor = tensors[f"{path}.weight"]
            block = f"{name}.{block_of(stored, path)}"
            sizes[block] += sum(size_of(tensor, packing) for packing in packings)
    return sizes


class _Job:
    """One calibration: its samples, its walks and the files of its blocks."""

    def __init__(self, conversion: Conversion, calibration: Calibration, folder: Path):
        self._conversion, self._calibration, self._folder = conversion, calibration, folder
        self._checkpoint = conversion.checkpoint
        self._course = Course(self._checkpoint, len(calibration.prompts))

    def samples(self) -> Generator[Calibrated, None, tuple[list[mx.array], list[Sample]]]:
        """Return captions and samples; the text encoder is calibrated on the way to them."""
        file = self._folder / SAMPLES
        if not file.is_file():
            ids = tokenize(self._checkpoint, self._calibration.prompts)
            encoder = self._checkpoint["text_encoder"]
            captions = yield from encode(encoder, dtype_of(encoder), ids, self._visitor(ENCODER))
            samples: list[Sample] = []
            if self._calibration.candidates.get(TRANSFORMER):
                samples = yield from self._course.draw(captions)
            save_samples(file, captions, samples)
        return load_samples(file)

    def calibrate_transformer(
        self, captions: Sequence[mx.array], samples: Sequence[Sample]
    ) -> Generator[Calibrated, None, None]:
        layers = self._calibration.candidates.get(TRANSFORMER, {})
        names = {self._block_of(TRANSFORMER, path) for path in layers}
        if all(self._file(TRANSFORMER, name).is_file() for name in names):
            return
        walk = self._course.walk(self._checkpoint[TRANSFORMER])
        sizes = [self._course.size(i) for i in range(self._course.count)]
        visit = self._visitor(TRANSFORMER)
        conditionings = yield from walk.condition(captions, sizes, visit)
        forwards = [
            Forward(s.latents, self._course.steps(s.prompt)[s.step].time, conditionings[s.prompt])
            for s in samples
        ]
        yield from walk.velocities(forwards, visit)

    def result(self) -> Conversion:
        """Return the conversion to write: chosen packings, and tensors that are packed so."""
        packings = {name: dict(chosen) for name, chosen in self._conversion.packings.items()}
        components = dict(self._checkpoint.components)
        for name, layers in self._calibration.candidates.items():
            options, rounded = self._measured(name, layers)
            packings[name] |= self._chosen(name, options)
            replaced = dict(components[name].tensors)
            for path in layers:
                key, tensor = f"{path}.weight", rounded[path, packings[name][path]]
                replaced[key] = replace(tensor, place=replaced[key].place)
            components[name] = replace(components[name], tensors=replaced)
        checkpoint = replace(self._checkpoint, components=components)
        return replace(self._conversion, checkpoint=checkpoint, packings=packings)

    def _chosen(self, name: str, options: Mapping[str, Sequence[Option]]) -> Packings:
        if name in self._calibration.rooms:
            return allocate(options, self._calibration.rooms[name])
        return {path: best_of(listed)[0].packing for path, listed in options.items()}

    def _measured(
        self, name: str, layers: Mapping[str, Sequence[Packing]]
    ) -> tuple[dict[str, list[Option]], dict[tuple[str, Packing], Tensor]]:
        """Return each layer's options with their errors, and the rounded tensors."""
        options: dict[str, list[Option]] = defaultdict(list)
        rounded: dict[tuple[str, Packing], Tensor] = {}
        for block in dict.fromkeys(self._block_of(name, path) for path in layers):
            entries = read_header(self._file(name, block))
            mine = {p: ps for p, ps in layers.items() if self._block_of(name, p) == block}
            names = {f"{p}.{label(q)}": (p, q) for p, ps in mine.items() for q in ps}
            config = {"quantization": {key: packing.block for key, (_, packing) in names.items()}}
            tensors = from_entries(entries, config)
            for key, (path, packing) in names.items():
                tensor = tensors[f"{key}.weight"]
                [error] = np.array(tensors[f"{key}.error"].read()).tolist()
                options[path].append(Option(packing, size_of(tensor, packing), error))
                rounded[path, packing] = tensor
        return options, rounded

    def _visitor(self, name: str) -> Visit[Calibrated]:
        """Return what happens at each block of a component: it is calibrated, unless it is done."""
        layers = self._calibration.candidates.get(name, {})
        total = len({self._block_of(name, path) for path in layers})
        done = 0

        def visit(
            block: str,
            streamed: Streamed,
            inputs: list[mx.array],
            arguments: Sequence[tuple[Any, ...]],
        ) -> Generator[Calibrated, None, list[mx.array]]:
            nonlocal done
            file, prefix = self._file(name, block), f"{block}."
            mine = {p.removeprefix(prefix): q for p, q in layers.items() if p.startswith(prefix)}
            if not mine or file.is_file():
                outputs = yield from run(block, streamed, inputs, arguments)
            else:
                with streamed.loaded() as module, record(module, list(mine)) as recording:
                    outputs = pass_through(module, inputs, arguments)
                device.give_back()  # the block's weights, which are read anew one by one
                arrays = calibrate_block(
                    recording, mine, partial(self._weight, name, prefix), self._dtype
                )
                _save(file, {f"{prefix}{key}": array for key, array in arrays.items()})
                del recording, arrays
                device.give_back()
            if mine:
                done += 1
                yield Calibrated(name, "calibrating", done, total)
            return outputs

        return visit

    @property
    def _dtype(self) -> mx.Dtype:
        return DTYPES[self._conversion.dtype]

    def _weight(self, name: str, prefix: str, layer: str) -> mx.array:
        tensor = self._conversion.tensors(name)[f"{prefix}{layer}.weight"]
        return tensor.read().astype(self._dtype)

    def _block_of(self, name: str, path: str) -> str:
        return block_of(self._checkpoint[name], path)

    def _file(self, name: str, block: str) -> Path:
        return self._folder / f"{name}.{block}.safetensors"


def _save(file: Path, arrays: dict[str, mx.array]) -> None:
    """Write a block's file, which appears complete or not at all."""
    temporary = file.with_suffix(".part.safetensors")
    mx.save_safetensors(str(temporary), arrays)
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(file)
