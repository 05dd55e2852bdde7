"""The plan of a conversion: the components to write, how each layer is stored, and the sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.components import COMPONENTS
from ..dtypes import DTYPES
from ..errors import RequestError
from ..events import finish
from ..lora.fuse import fused
from ..lora.library import Library
from ..lora.loras import AppliedLora, Loras
from ..lora.source import Lora
from ..quantization.recipe import Quantization
from ..weights.sizes import Output, outputs
from ..weights.tensor import Packings, Tensors, stored
from .calibration import Calibration, calibrated_plan
from .exports import DIFFUSERS, Target, check, outputs_for, target_of

MIXED_BITS = 4
"""The bits of the text encoder where the transformer's are mixed, unless others are named."""


@dataclass(frozen=True)
class Conversion:
    """A checkpoint, and the form in which some or all of its components will be written."""

    checkpoint: Checkpoint
    dtype: str
    packings: Mapping[str, Packings]  # by component: how its quantized layers are stored
    calibration: Calibration | None = None
    target: Target | None = None  # another program that is to load the result
    loras: tuple[AppliedLora, ...] = ()  # that are merged into the weights

    @classmethod
    def plan(
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
        calibrate: bool = False,
        mixed: str | None = None,
        rotate: bool = False,
        prompts: Path | None = None,
        target: str | None = None,
        loras: Sequence[str | Path | Lora] = (),
        lora_folder: str | Path | None = None,
        download: bool = False,
    ) -> "Conversion":
        """Open `source` and decide how to write it.

        `text_encoder` quantizes that component differently from the others. `only` names one
        component to write. `base` completes a source that is no full checkpoint, and `beside` adds
        files with other components. `target` names a program that is to load the result: mlx-vlm,
        mflux or diffusers.

        `calibrate` rounds weights by what the model computes with, over a list of `prompts`.
        `mixed` does so as well, and chooses the bits of each of the transformer's layers: "3.5" in
        the mean, or "3GB" in all. `rotate` puts a Hadamard transform before layers where it pays.

        `loras` are merged into the weights, before they are quantized; `download` allows those that
        are on the Hub to be fetched.
        """
        if dtype not in DTYPES:
            raise RequestError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        if only is not None and only not in COMPONENTS:
            raise RequestError(f"only must be one of {', '.join(COMPONENTS)}, not {only!r}")
        if mixed is not None:
            if quantize is not None:
                raise RequestError(f"quantize must be left out where mixed={mixed!r} chooses")
            quantize = MIXED_BITS
        is_calibrated = calibrate or mixed is not None
        if not is_calibrated and (rotate or prompts is not None):
            name = "rotate" if rotate else "prompts"
            raise RequestError(f"{name} has an effect only with calibrate=True or mixed='4.0'")
        values = _values(quantize, text_encoder, only)
        if calibrate and not any(value is not None for value in values.values()):
            raise RequestError("calibrate is for quantizing; say how many bits as well")
        if group_size is not None and not any(value is not None for value in values.values()):
            raise RequestError("a group size is for quantizing; say how many bits as well")
        quantizations = {
            name: None
            if value is None
            else Quantization.parse(value, group_size, calibrated=is_calibrated)
            for name, value in values.items()
        }
        program = None if target is None else target_of(target)
        if program and rotate:
            raise RequestError(f"{program.name} does not rotate inputs; leave out rotate")
        if program and only:
            raise RequestError(f"{program.name} needs all components; leave out only={only!r}")
        checkpoint, applied = _merged(
            Checkpoint.open(source, base, beside), loras, lora_folder, download
        )
        conversion = replace(cls._of(checkpoint, quantizations, dtype), loras=applied)
        if is_calibrated:
            packings, calibration = calibrated_plan(
                checkpoint, conversion.packings, dtype, mixed=mixed, rotate=rotate, prompts=prompts
            )
            conversion = replace(conversion, packings=packings, calibration=calibration)
        is_chosen = any(value is not None for value in values.values())
        return conversion if program is None else conversion._for(program, unpack=not is_chosen)

    def _for(self, target: Target, *, unpack: bool) -> "Conversion":
        """Return the same plan for another program; `unpack` allows to undo a quantization."""
        packings = self.packings
        if target is DIFFUSERS and unpack:
            packings = {name: {} for name in packings}
        check(target, packings, {name: self.tensors(name) for name in packings})
        return replace(self, packings=packings, target=target)

    @classmethod
    def of(cls, checkpoint: Checkpoint, quantize: int | str, dtype: str) -> "Conversion":
        """Plan to write all of an opened checkpoint."""
        quantization = Quantization.parse(quantize)
        return cls._of(checkpoint, dict.fromkeys(COMPONENTS, quantization), dtype)

    @classmethod
    def _of(
        cls, checkpoint: Checkpoint, quantizations: Mapping[str, Quantization | None], dtype: str
    ) -> "Conversion":
        packings: dict[str, Packings] = {}
        for name, component in checkpoint.components.items():
            if name not in quantizations:
                continue
            quantization = quantizations[name]
            if quantization is None:
                packings[name] = stored(component.tensors)
            else:
                unquantized = component.component.unquantized
                packings[name] = quantization.choose(component.tensors, unquantized)
        return cls(checkpoint, dtype, packings)

    @property
    def components(self) -> tuple[str, ...]:
        """The names of the components to write."""
        return tuple(self.packings)

    @property
    def is_complete(self) -> bool:
        """Whether all that the checkpoint has is written."""
        return set(self.packings) == set(self.checkpoint.components)

    @property
    def is_as_stored(self) -> bool:
        """Whether the source is quantized in this way already."""
        return all(self.packings[name] == stored(self.tensors(name)) for name in self.packings)

    @property
    def total(self) -> int:
        """The bytes of all weights to write."""
        return sum(self.size(name) for name in self.packings)

    def tensors(self, name: str) -> Tensors:
        return self.checkpoint[name].tensors

    def outputs(self, name: str) -> list[Output]:
        items = outputs(self.tensors(name), self.packings[name], DTYPES[self.dtype])
        return outputs_for(self.target, name, items)

    def size(self, name: str) -> int:
        """Return the bytes of a component's weights to write."""
        return sum(output.size for output in self.outputs(name))

    def count(self, name: str) -> int:
        """Return the number of a component's parameters."""
        return sum(tensor.count for tensor in self.tensors(name).values())


def _merged(
    checkpoint: Checkpoint,
    loras: Sequence[str | Path | Lora],
    lora_folder: str | Path | None,
    download: bool,
) -> tuple[Checkpoint, tuple[AppliedLora, ...]]:
    """Return a checkpoint with LoRAs merged in, and what they are."""
    shelf = Loras(checkpoint, Library.open(lora_folder))
    opened = finish(shelf.opening(loras, download=download))
    return fused(checkpoint, opened), tuple(AppliedLora.of(*pair) for pair in opened)


def _values(
    quantize: int | str | None, text_encoder: int | str | None, only: str | None
) -> dict[str, int | str | None]:
    """Return how each component to write is to be quantized; refuse a value that none would use."""
    values: dict[str, int | str | None] = dict.fromkeys(COMPONENTS, quantize)
    if text_encoder is not None:
        values["text_encoder"] = text_encoder
    values = {name: value for name, value in values.items() if only in (None, name)}
    used = {v for name, v in values.items() if COMPONENTS[name].unquantized is not None}
    if unused := {quantize, text_encoder} - {None} - used:
        raise RequestError(f"quantizing to {unused.pop()!r} has no effect on the {only} alone")
    return values
