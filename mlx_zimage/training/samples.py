"""Pictures of the model as it is being trained."""

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from ..events import Event, Result
from ..generation.job import Job
from ..generation.preview import Previewer
from ..images.files import save_picture
from ..lora.attach import Tree
from ..memory.store import Store
from ..models.layers.slot import Slot
from ..prompt.embeddings import Embeddings
from ..request import Request
from .adapters import TrainedAdapter
from .plan import Plan

SEED = 1  # of the first sample; the same pictures at every interval show the progress


class LentStore(Store):
    """A store that lends a transformer instead of loading it."""

    def __init__(self, store: Store, transformer: Callable[[], Any]):
        vars(self).update(vars(store))
        self._transformer = transformer

    def get(self, name: str) -> Any:
        return self._transformer() if name == "transformer" else super().get(name)


def lent(model: nn.Module) -> Any:
    """Return a model of the same arrays that draws as the file in training will make others draw.

    The adapters that are frozen are left out. A job may change the model that it is lent.
    """
    clone = Tree({}, {}).cloned(model, "")
    for module in clone.modules():
        if isinstance(module, TrainedAdapter):
            module.under = None
        elif isinstance(module, Slot) and "adapter" not in module:
            module.adapter = None
    return clone


class Samples:
    """Draws the sample prompts of a run with a transformer in training."""

    def __init__(self, plan: Plan, captions: Mapping[str, mx.array]):
        self._plan = plan
        self._embeddings = Embeddings()
        for text, caption in captions.items():
            self._embeddings.put(text, caption)
        width, height = plan.examples[0].size
        self._runs = [
            plan.planner.plan(Request(text, width=width, height=height, seed=SEED + i))
            for i, text in enumerate(plan.sample_prompts)
        ]

    def draw(self, transformer: nn.Module, step: int) -> Generator[Event, None, list[Path]]:
        """Draw and save every sample; return the files. Their events are those of a job."""
        plan = self._plan
        store = LentStore(plan.store, lambda: lent(transformer))
        previewer = Previewer(plan.checkpoint, store)
        about = {"model": plan.checkpoint.path.name, "training_step": step}
        files = []
        for event in Job(
            self._runs, plan.checkpoint, store, self._embeddings, previewer, about
        ).events():
            if isinstance(event, Result):
                file = plan.folder / "samples" / f"step-{step:06}-{event.job + 1}.png"
                save_picture(event.image, file, event.metadata, overwrite=True)
                files.append(file)
            yield event
        return files
