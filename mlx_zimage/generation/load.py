"""Loading a component in the course of a generation."""

import time
from collections.abc import Generator
from typing import Any

from ..events import Event, Finished, Started
from ..memory.store import Store


def load(store: Store, name: str, job: int) -> Generator[Event, None, Any]:
    """Return a component's module, with events where it has to be loaded first."""
    if name in store:
        return store.get(name)
    started = time.perf_counter()
    yield Started("load", name, job)
    module = store.get(name)
    yield Finished("load", time.perf_counter() - started, name, job)
    return module
