"""A job: one or several runs, from prompts to pictures.

Where all components stay in memory, each run ends with its pictures before the next begins.
Elsewhere all runs are denoised before the first is decoded, so that each component is loaded once.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
from PIL import Image

from ..checkpoint.checkpoint import Checkpoint
from ..errors import CheckpointError
from ..events import Event, Finished, Result, Started, Step
from ..images.pixels import to_image
from ..memory.store import Store
from ..models.autoencoder import Autoencoder
from ..prompt.embeddings import Embeddings
from .encode import encode
from .failures import device_failures
from .load import load
from .loop import Slots, copied, denoise
from .predict import modulate, predictor
from .preview import Previewer
from .run import Beginning, Run


class Job:
    """Runs on one model, as a stream of events. `about` describes the model in the metadata."""

    def __init__(
        self,
        runs: Sequence[Run],
        checkpoint: Checkpoint,
        store: Store,
        embeddings: Embeddings,
        previewer: Previewer,
        about: Mapping[str, Any],
    ):
        self._runs, self._checkpoint, self._store = list(runs), checkpoint, store
        self._embeddings, self._previewer, self._about = embeddings, previewer, about

    def events(self) -> Generator[Event, None, None]:
        """Do the work. To cancel, close the generator."""
        try:
            with device_failures([run.request for run in self._runs]):
                captions = yield from encode(self._runs, self._store, self._embeddings)
                numbers = list(range(len(self._runs)))
                for group in [[n] for n in numbers] if self._store.shares else [numbers]:
                    latents = yield from self._sample(group, captions)
                    while again := [job for job in group if self._runs[job].then is not None]:
                        yield from self._go_on(again, latents)
                        latents |= yield from self._sample(again, captions)
                    yield from self._decode(group, latents, captions)
        finally:
            self._store.end_job()  # also where the consumer has closed the generator

    def _sample(
        self, group: Sequence[int], captions: Mapping[str, mx.array]
    ) -> Generator[Event, None, dict[int, mx.array]]:
        """Return the last latents of these runs, by job."""
        beginnings = yield from self._begin(group)
        latents = yield from self._denoise(group, captions, beginnings)
        return dict(zip(group, latents, strict=True))

    def _begin(self, group: Sequence[int]) -> Generator[Event, None, list[Beginning]]:
        """Return the state from which each of these runs begins; the VAE encodes its pictures."""
        vae: Any = None
        beginnings = []
        for job in group:
            run, prepared = self._runs[job], {}
            stream = run.noise()
            if run.prepare is not None:
                if vae is None:
                    vae = yield from load(self._store, "vae", job)
                started = time.perf_counter()
                yield Started("encode", "vae", job)
                prepared = dict(run.prepare(vae, stream))
                mx.eval(list(prepared.values()))
                yield Finished("encode", time.perf_counter() - started, "vae", job)
            beginnings.append(run.begin(prepared, stream))
            mx.eval(beginnings[-1].latents)
        if vae is not None:
            del vae
            self._store.release()
        return beginnings

    def _denoise(
        self,
        group: Sequence[int],
        captions: Mapping[str, mx.array],
        beginnings: Sequence[Beginning],
    ) -> Generator[Event, None, list[mx.array]]:
        """Return the last latents of these runs."""
        transformer = yield from load(self._store, "transformer", group[0])
        modulations = modulate(transformer, [self._runs[job] for job in group])
        if self._store.memory == "staged":
            transformer.drop_modulation()
        results = []
        for job, beginning, modulation in zip(group, beginnings, modulations, strict=True):
            run, started = self._runs[job], time.perf_counter()
            yield Started("denoise", job=job)
            slots = Slots(
                beginning.latents,
                predictor(run, transformer, modulation, captions),
                run.sampler(),
                beginning.keep,
                self._check_finite,
                self._previewer.draw,
            )
            latents = yield from _numbered(run, job, denoise(run.schedule, slots))
            results.append(latents)
            yield Finished("denoise", time.perf_counter() - started, job=job)
            del slots
        del transformer, modulations, modulation
        self._store.release()
        return results

    def _go_on(
        self, group: Sequence[int], latents: Mapping[int, mx.array]
    ) -> Generator[Event, None, None]:
        """Put the runs that go on from these ones' pictures in their place."""
        vae = yield from load(self._store, "vae", group[0])
        for job in group:
            run, pictures = self._runs[job], []
            for index in range(run.request.count):
                pictures.append((yield from self._picture(vae, latents[job], job, index)))
            assert run.then is not None
            self._runs[job] = run.then(pictures)
        del vae
        self._store.release()

    def _decode(
        self,
        group: Sequence[int],
        latents: Mapping[int, mx.array],
        captions: Mapping[str, mx.array],
    ) -> Generator[Event, None, None]:
        vae = yield from load(self._store, "vae", group[0])
        for job in group:
            run = self._runs[job]
            for index in range(run.request.count):
                image = yield from self._picture(vae, latents[job], job, index)
                single = copied(latents[job][index : index + 1])
                caption = copied(run.caption(index, captions))
                metadata = {"request": run.request.to_dict(), "index": index, **self._about}
                yield Result(image, single, caption, run.request, index, metadata, job)

    def _picture(
        self, vae: Autoencoder, latents: mx.array, job: int, index: int
    ) -> Generator[Event, None, Image.Image]:
        """Return one of a run's pictures."""
        run, started = self._runs[job], time.perf_counter()
        yield Started("decode", job=job)
        pixels = vae.decode(copied(latents[index : index + 1]))[0]
        self._check_finite(pixels, "the decoder")
        image = to_image(pixels)
        if run.finish is not None:
            image = run.finish(image, index)
        yield Finished("decode", time.perf_counter() - started, job=job)
        return image

    def _check_finite(self, numbers: mx.array, where: str) -> None:
        if not mx.isfinite(numbers).all().item():
            dtype = self._store.dtype
            hint = 'load it with dtype="bfloat16"' if dtype == "float16" else "download it again"
            raise CheckpointError(
                f"{self._checkpoint.path} makes numbers that are not finite in {where}: its "
                f"weights are broken, or they, the latents or the guidance are too large for "
                f"{dtype}; {hint}"
            )


def _numbered(
    run: Run, job: int, steps: Generator[Step, None, mx.array]
) -> Generator[Step, None, mx.array]:
    """Pass steps on with the number of their job, and return what they return.

    The steps of runs that go on from each other are counted together.
    """
    others = run.steps_before + run.steps_after
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            latents: mx.array = end.value
            return latents
        number = step.number + run.steps_before
        yield replace(step, job=job, number=number, total=step.total + others)
