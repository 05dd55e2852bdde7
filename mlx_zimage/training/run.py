"""Training: `train` is a generator of events, as a generation is.

Stop it by closing the generator, or by Ctrl-C: the last complete step is saved, and a resumed run
goes on to the same weights, bit for bit.
"""

import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .. import checks, device
from ..checks import path_text
from ..errors import LoraError, RequestError
from ..events import Downloaded, Event, Written
from ..files import check_output
from ..images.files import save_picture
from ..loading import Loading
from ..models.layers.evaluation import differentiating
from .adapters import make
from .curve import curve
from .events import Encoded, TrainingStarted, TrainingStep
from .forward import Inputs, RecomputedBlock, inputs, loss
from .lora_file import write
from .optimizer import Arrays, adamw, clipped, learning_rate
from .options import TrainingOptions
from .plan import Plan
from .samples import Samples
from .state import State

SUFFIX = ".safetensors"
STATE, CURVE = "state.safetensors", "loss.png"
BLOCKS = ("noise_refiner", "context_refiner", "layers")
TrainingEvent = Downloaded | Written | Encoded | TrainingStarted | TrainingStep | Event


def train(
    images: str | Path,
    output: str | Path,
    model: str | Path = "turbo",
    *,
    options: TrainingOptions | None = None,
    adapter: str | Path | None = None,
    quantize: int | str | None = None,
    dtype: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    revision: str | None = None,
) -> Generator[TrainingEvent, None, None]:
    """Train a LoRA on pictures with captions, as events, and write it to `output`.

    `images` is a folder, each picture with its caption in a .txt file of the same name, or a JSONL
    file of `file_name` and `text`. `adapter` is a LoRA that stays attached, frozen, while training,
    such as Turbo's training adapter. Beside `output` a folder keeps the run's state, samples and
    curve; `resume` goes on from there, and `overwrite` begins anew.
    """
    images, output = checks.path("images", images), checks.path("the output", output)
    options = options or TrainingOptions()
    folder = output.with_name(f"{output.stem}-training")
    _check_files(output, folder / STATE, resume=resume, overwrite=overwrite)
    if dtype is None:
        dtype = "float32" if device.kind() == "cpu" else "bfloat16"
    loading = Loading(
        model,
        quantize,
        dtype,
        loras=[] if adapter is None else [adapter],
        memory="staged",
        download=download,
        revision=revision,
    )
    checkpoint, store, *_ = yield from loading.run()
    plan = Plan.make(images, folder, checkpoint, store, options, quantize)
    plan.check_room()
    trainer = Trainer(plan, output)
    yield from trainer.events(resume)


def _check_files(output: Path, state: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise RequestError("resume=True goes on and overwrite=True begins anew; leave one out")
    if resume and not state.is_file():
        raise RequestError(
            f"{path_text(state)} is missing, so there is no run to resume; begin without --resume"
        )
    check_output(output, SUFFIX, overwrite=resume or overwrite or state.is_file())
    if state.is_file() and not (resume or overwrite):
        raise RequestError(
            f"{path_text(state)} is the state of a run that was begun; go on with it (--resume), "
            "or begin anew (--overwrite)"
        )


class Trainer:
    """A run at work: the model in training, and the state of the last complete step."""

    def __init__(self, plan: Plan, output: Path):
        self._plan, self._output, self._options = plan, output, plan.options
        self._state_file = plan.folder / STATE
        self._saved_step = -1
        self._state: State | None = None

    def events(self, resume: bool) -> Generator[TrainingEvent, None, None]:
        """Encode what is new, then train from the beginning or from the saved state."""
        plan = self._plan
        begun = State.load(self._state_file, plan.about) if resume else None
        yield plan.started(0 if begun is None else begun.step)
        texts = [*plan.captions, *plan.sample_prompts]
        limit = plan.planner.max_tokens
        yield from plan.prepared.encode(plan.examples, texts, plan.store, plan.tokenizer, limit)
        dtype = self._prepare_model()
        captions = {text: plan.prepared.caption(text).astype(dtype) for text in plan.sample_prompts}
        self._samples = Samples(plan, captions)
        self._state = begun or State.beginning(self._parameters())
        self._saved_step = self._state.step if begun else -1
        try:
            yield from self._steps(self._state)
        finally:  # also where the consumer has closed the generator, or pressed Ctrl-C
            self._save()

    def _prepare_model(self) -> mx.Dtype:
        """Load the transformer and put the adapters into its layers."""
        plan = self._plan
        self._model = plan.store.get("transformer")
        self._model.freeze()
        layers = dict(self._model.named_modules())
        frozen = {path: layers[path].adapter for path in plan.shapes}
        self._adapters = make(plan.shapes, self._options, frozen)
        for path, adapter in self._adapters.items():
            layers[path].adapter = adapter
        if self._options.checkpointing:
            for name in BLOCKS:
                blocks = getattr(self._model, name)
                setattr(self._model, name, [RecomputedBlock.of(block) for block in blocks])
        dtype: mx.Dtype = self._model.dtype
        return dtype

    def _parameters(self) -> Arrays:
        """Return the trained numbers, named by the layer's path and the adapter's array."""
        return {
            f"{path}.{name}": array
            for path, adapter in self._adapters.items()
            for name, array in adapter.trainable_parameters().items()
        }

    def _put(self, parameters: Arrays) -> None:
        for key, array in parameters.items():
            path, _, name = key.rpartition(".")
            self._adapters[path][name] = array

    def _loss(self, parameters: Arrays, x: Inputs) -> mx.array:
        self._put(parameters)
        return loss(self._model, x)

    def _steps(self, state: State) -> Generator[TrainingEvent, None, None]:
        options = self._options
        compiles = device.kind() != "cpu" if options.compile is None else options.compile
        wrap: Any = mx.compile if compiles else lambda function: function
        gradients = wrap(mx.value_and_grad(self._loss))
        update = wrap(partial(_updated, most=options.clip, decay=options.weight_decay))
        for number in range(state.step, options.steps):
            started = time.perf_counter()
            value, summed = self._gradients(gradients, state.parameters, number)
            rate = learning_rate(number, options.steps, options.learning_rate, options.warmup)
            groups = state.parameters, summed, state.first, state.second
            arrays, length = update(*groups, mx.array(rate), mx.array(float(number + 1)))
            mx.eval(arrays, length)
            if not np.isfinite(value) or not mx.isfinite(length).item():
                raise LoraError(
                    f"the loss is not finite at step {number + 1}; lower the learning rate, or "
                    "use float32"
                )
            self._state = state = state.moved(arrays, value)
            saved = yield from self._after(state)
            seconds = time.perf_counter() - started
            yield TrainingStep(
                state.step, options.steps, value, length.item(), rate, seconds, tuple(saved)
            )

    def _gradients(self, function: Any, parameters: Arrays, number: int) -> tuple[float, Arrays]:
        """Return the mean loss and gradient of a step's passes."""
        passes = self._options.accumulate
        summed: Arrays = {}
        total = 0.0
        for index in range(number * passes, (number + 1) * passes):
            with differentiating():
                value, gradients = function(parameters, self._inputs(index))
            summed = {n: g if not summed else summed[n] + g for n, g in gradients.items()}
            mx.eval(value, summed)
            total += value.item()
        return total / passes, {name: g / passes for name, g in summed.items()}

    def _inputs(self, index: int) -> Inputs:
        """Return what pass `index` takes, read from the disk."""
        plan = self._plan
        examples = [plan.examples[i] for i in plan.order.batch(index)]
        latents = np.stack([plan.prepared.latents(example) for example in examples])
        draw = plan.noise.draw(index, latents.shape)
        pairs = zip(examples, draw.dropped, strict=True)
        texts = ["" if dropped else example.caption for example, dropped in pairs]
        captions = [plan.prepared.caption(text) for text in texts]
        return inputs(self._model, latents, draw.noise, draw.sigmas, captions)

    def _after(self, state: State) -> Generator[TrainingEvent, None, Sequence[Path]]:
        """Save and draw what is due after a step; return the files."""
        options, is_last = self._options, state.step == self._options.steps
        saved: list[Path] = []
        if is_last or state.step % options.save_every == 0:
            saved += self._save()
        every = options.sample_every
        if every and (is_last or state.step % every == 0):
            self._put(state.parameters)  # a traced pass leaves its own there
            saved += yield from self._samples.draw(self._model, state.step)
        return saved

    def _save(self) -> list[Path]:
        """Write the state, the LoRA and the curve of the last complete step, once."""
        state = self._state
        if state is None or state.step == self._saved_step or not state.step:
            return []
        self._saved_step = state.step
        image = curve(state.losses, self._options.steps)
        state.save(self._state_file, self._plan.about)
        write(self._output, state.parameters, self._metadata(state))
        picture = self._plan.folder / CURVE
        save_picture(image, picture, {}, overwrite=True)
        return [self._output, self._state_file, picture]

    def _metadata(self, state: State) -> dict[str, str]:
        return {
            "modelspec.architecture": "Z-Image/lora",
            "ss_base_model_version": self._plan.planner.context.family.name,
            "training_base": self._plan.identity,
            "training_steps": str(state.step),
        }


def _updated(
    parameters: Arrays,
    gradients: Arrays,
    first: Arrays,
    second: Arrays,
    rate: mx.array,
    number: mx.array,
    *,
    most: float,
    decay: float,
) -> tuple[tuple[Arrays, Arrays, Arrays], mx.array]:
    """Return the arrays after a step, and the gradient's length before clipping."""
    gradients, length = clipped(gradients, most)
    return adamw(parameters, gradients, first, second, rate, number, decay), length
