"""`ZImage`: the public face of a model. It delegates, and adds no story of its own."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from .capabilities import Capabilities, capabilities, describe
from .checkpoint.checkpoint import Checkpoint
from .dtypes import Dtype
from .events import Downloaded, Event, Result, Written, finish
from .generation.job import Job
from .generation.plan import Planner
from .generation.preview import Previewer
from .generation.run import Run
from .loading import Loading, LoadOptions
from .lora.loras import AppliedLora, Loras
from .lora.source import Lora
from .memory.estimate import Estimate
from .memory.store import Memory, Store
from .models.activations import Workload
from .process import check_process
from .prompt.embeddings import Embeddings
from .quantization.recipe import Quantize
from .request import Options, PromptOptions, Request

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    from typing_extensions import Unpack

Prompt = str | Sequence[str] | Request | None


class ZImage:
    """A Z-Image model: `ZImage.load(...)`, then `generate` or `stream`, from any thread."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        store: Store,
        quantize: int | str | None = None,
        name: str = "",
        previewer: Previewer | None = None,
        loras: Loras | None = None,
    ):
        self._checkpoint = checkpoint
        self._store = store
        self._quantize = quantize or checkpoint.quantized
        self._planner = Planner(checkpoint)
        self._embeddings = Embeddings()
        self._previewer = previewer or Previewer(checkpoint, store)
        self._name = name or checkpoint.path.name
        self._loras = loras or Loras(checkpoint)

    @classmethod
    def load(
        cls,
        source: str | Path = "turbo",
        *,
        quantize: Quantize | None = None,
        dtype: Dtype | None = None,
        loras: Sequence[str | Path | Lora] = (),
        lora_folder: str | Path | None = None,
        memory: Memory = "auto",
        download: bool = False,
        revision: str | None = None,
        keep_copy: bool = True,
        preview_decoder: str | Path | None = None,
    ) -> "ZImage":
        """Open a checkpoint: a name, a Hub repo id, a folder in the official layout, or a file.

        Configs and file headers are checked now; weights are read when first needed. A file takes
        what it lacks from Turbo, which must be on this machine. Nothing is downloaded unless
        `download` is true. A large model is quantized once: the copy is kept on disk and used
        again, unless `keep_copy` is false. `dtype` defaults to the device's fast type.
        `preview_decoder` is a TAEF1 file for `Step.preview`. `loras` are as for `set_loras`, and
        `lora_folder` is where they are known by name.
        """
        weights = source, quantize, dtype, loras, lora_folder, memory
        return cls(*Loading(*weights, download, revision, keep_copy, preview_decoder).finish())

    @classmethod
    def loading(
        cls,
        source: str | Path = "turbo",
        *,
        requests: Sequence[Request] = (),
        **options: "Unpack[LoadOptions]",
    ) -> Generator[Downloaded | Written, None, "ZImage"]:
        """Load as events, and return the model. `requests` are judged before a copy is written."""
        return cls(*(yield from Loading(source, **options).run(requests)))

    def set_loras(self, loras: Sequence[str | Path | Lora], *, download: bool = False) -> None:
        """Draw with these LoRAs, such as "FILE:0.8", from the next generation on.

        If one cannot be used, nothing changes. A running generation goes on as it began.
        """
        self._store.put(finish(self._loras.choosing(loras, download=download)))

    @property
    def loras(self) -> tuple[AppliedLora, ...]:
        """The LoRAs that the next generation draws with."""
        return self._store.loras.applied

    def capabilities(self) -> Capabilities:
        return capabilities(self._checkpoint, self._planner, self._store, self._quantize)

    def describe(self) -> dict[str, Any]:
        """Return what the metadata of a picture says about the model that made it."""
        return describe(self._checkpoint, self._store, self._quantize, self._name)

    @overload
    def generate(self, prompt: str, **options: "Unpack[Options]") -> Result: ...
    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], **options: "Unpack[Options]"
    ) -> list[Result]: ...
    @overload
    def generate(self, prompt: Request, **options: "Unpack[Options]") -> Result | list[Result]: ...
    @overload
    def generate(
        self,
        prompt: None = None,
        *,
        prompt_embeds: "np.ndarray | mx.array",
        **options: "Unpack[PromptOptions]",
    ) -> Result: ...
    @overload
    def generate(
        self,
        prompt: None = None,
        *,
        prompt_embeds: "Sequence[np.ndarray | mx.array]",
        **options: "Unpack[PromptOptions]",
    ) -> list[Result]: ...
    def generate(self, prompt: Any = None, **options: Any) -> Result | list[Result]:
        """Make one picture, or a list for a list of prompts. Options are `Request`'s fields."""
        run = self._plan(prompt, options)
        results = [event for event in self._events([run]) if isinstance(event, Result)]
        return results if run.request.batched else results[0]

    def stream(
        self, prompt: Prompt = None, **options: "Unpack[Options]"
    ) -> Generator[Event, None, None]:
        """Make the same as events, as they happen. To cancel, close the generator.

        A request that is impossible or does not fit in memory is refused at once.
        """
        return self._events([self._plan(prompt, options)])

    def stream_all(self, requests: Sequence[Request]) -> Generator[Event, None, None]:
        """Run several requests as one job: each event's `job` is the index of its request.

        Where memory is staged, each component is loaded once for all of them.
        """
        return self._events([self._plan(request, {}) for request in requests])

    def check(self, prompt: Prompt = None, **options: "Unpack[Options]") -> Request:
        """Return the request with every field filled in, or raise what stands against it."""
        run = self._plan(prompt, options)
        self._store.check_room([self._workload(run)])
        return run.request

    def estimate(self, prompt: Prompt = None, **options: "Unpack[Options]") -> Estimate:
        """Return the most bytes that each phase of this generation would hold."""
        return self._store.estimate(self._workload(self._plan(prompt, options)))

    def unload(self) -> None:
        """Free the weights. The next generation loads them again; a running one goes on."""
        self._store.clear()
        self._loras.clear()
        self._embeddings.clear()
        self._previewer.clear()

    def __reduce__(self) -> Any:
        raise TypeError("a ZImage cannot be pickled; load the checkpoint again in that process")

    def _plan(self, prompt: Prompt, options: Any) -> Run:
        request = prompt if isinstance(prompt, Request) else Request(prompt, **options)
        if isinstance(prompt, Request) and options:
            request = prompt.replace(**options)
        return self._planner.plan(request)

    def _workload(self, run: Run) -> Workload:
        embeddings = self._embeddings.under(self._store.loras.key("text_encoder"))
        return replace(run.workload, encodes=any(text not in embeddings for text in run.tokens))

    def _events(self, runs: Sequence[Run]) -> Generator[Event, None, None]:
        check_process()
        self._store.check_room([self._workload(run) for run in runs])
        store = self._store.as_now()
        embeddings = self._embeddings.under(store.loras.key("text_encoder"))
        shared = self._checkpoint, store, embeddings, self._previewer
        about = describe(self._checkpoint, store, self._quantize, self._name)
        return Job(runs, *shared, about).events()
