"""`ZImage`: the public face of a model. It delegates, and adds no story of its own."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from .capabilities import Capabilities, capabilities
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.identity import identity
from .dtypes import Dtype
from .events import Downloaded, Event, Result, Written
from .generation.job import Job
from .generation.plan import Planner
from .generation.preview import Previewer
from .generation.run import Run
from .loading import Loading
from .memory.estimate import Estimate
from .memory.store import Memory, Store
from .models.activations import Workload
from .process import check_process
from .prompt.embeddings import Embeddings
from .quantization.recipe import Quantize
from .request import Options, PromptOptions, Request
from .version import __version__

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
    ):
        self._checkpoint = checkpoint
        self._store = store
        self._quantize = quantize or checkpoint.quantized
        self._planner = Planner(checkpoint)
        self._embeddings = Embeddings()
        self._previewer = previewer or Previewer(checkpoint, store)
        self._name = name or checkpoint.path.name
        self._identity: str | None = None

    @classmethod
    def load(
        cls,
        source: str | Path = "turbo",
        *,
        quantize: Quantize | None = None,
        dtype: Dtype | None = None,
        loras: Sequence[str] = (),
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
        `preview_decoder` is a TAEF1 file for `Step.preview`.
        """
        checkpoint, store, previewer = Loading(
            source, quantize, dtype, loras, memory, download, revision, keep_copy, preview_decoder
        ).finish()
        return cls(checkpoint, store, quantize, str(source), previewer)

    @classmethod
    def loading(
        cls,
        source: str | Path = "turbo",
        *,
        quantize: Quantize | None = None,
        dtype: Dtype | None = None,
        memory: Memory = "auto",
        download: bool = False,
        revision: str | None = None,
        keep_copy: bool = True,
        preview_decoder: str | Path | None = None,
        requests: Sequence[Request] = (),
    ) -> Generator[Downloaded | Written, None, "ZImage"]:
        """Load as events, and return the model. `requests` are judged before a copy is written."""
        checkpoint, store, previewer = yield from Loading(
            source, quantize, dtype, (), memory, download, revision, keep_copy, preview_decoder
        ).run(requests)
        return cls(checkpoint, store, quantize, str(source), previewer)

    def capabilities(self) -> Capabilities:
        return capabilities(self._checkpoint, self._planner, self._store, self._quantize)

    def describe(self) -> dict[str, Any]:
        """Return what the metadata of a picture says about the model that made it."""
        from importlib.metadata import version  # slow to import

        if self._identity is None:
            self._identity = identity(self._checkpoint)
        return {
            "model": self._name,
            "identity": self._identity,
            "dtype": self._store.dtype,
            "quantize": self._quantize,
            "mlx_zimage": __version__,
            "mlx": version("mlx"),
        }

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
        return replace(run.workload, encodes=any(t not in self._embeddings for t in run.tokens))

    def _events(self, runs: Sequence[Run]) -> Generator[Event, None, None]:
        check_process()
        self._store.check_room([self._workload(run) for run in runs])
        shared = self._checkpoint, self._store, self._embeddings, self._previewer
        return Job(runs, *shared, self.describe()).events()
