"""The owner: one thread that opens the model, and runs and closes every generation.

MLX's arrays stay in this thread. What leaves it is plain data: numbers, texts, bytes of pictures.
"""

import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from .. import (
    Downloaded,
    Event,
    Result,
    Step,
    Truncated,
    Written,
    ZImage,
    ZImageError,
)
from .failures import refusal_of
from .jobs import Work
from .plans import Group
from .settings import Settings
from .sheets import draw_sheet

LOG = logging.getLogger(__name__)
Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Takes a job's id, the kind of a happening, and its data; from any thread."""
Opening = Callable[[Downloaded | Written], None]
"""Takes what happens while the model is opened; called in the owner's thread."""
PREVIEW_QUALITY = 80
LINGERS = 5.0
"""Seconds that a thread may take to go after its last Python code."""


class Album(Protocol):
    """Keeps pictures: the history, as the owner needs it."""

    def add(self, picture: Any, metadata: Any, **about: Any) -> dict[str, Any]: ...

    def path_of(self, id: str) -> Any: ...


class Cancelled(Exception):  # noqa: N818  # no error
    """The job that runs was cancelled."""


class Owner:
    """The thread that has the model, and the work that waits for it."""

    def __init__(self, settings: Settings, album: Album, tell: Tell, opening: Opening):
        self._settings, self._album, self._tell = settings, album, tell
        self._opening = opening
        self._waiting: deque[Work] = deque()
        self._change = threading.Condition()
        self._stopped = False
        self._running: Work | None = None
        self.is_loaded = False
        self.model: Future[ZImage] = Future()
        self._thread = threading.Thread(target=self._main, name="model")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End what runs at its next event, and the thread; what waits is dropped."""
        with self._change:
            self._stopped = True
            self._waiting.clear()
            if self._running is not None:
                self._running.cancel.set()
            self._change.notify()
        if self._thread.ident is not None:
            _join(self._thread)

    def put(self, work: Work) -> None:
        with self._change:
            self._waiting.append(work)
            self._change.notify()

    def withdraw(self, work: Work) -> bool:
        """Take back work that waits; return whether it did."""
        with self._change:
            if work in self._waiting:
                self._waiting.remove(work)
                return True
        return False

    def _main(self) -> None:
        try:
            self.model.set_result(self._open())
        except BaseException as error:
            self.model.set_exception(error)
            return
        while (work := self._next()) is not None:
            try:
                self._run(work, self.model.result())
            finally:
                self._running = None

    def _open(self) -> ZImage:
        settings = self._settings
        options = {"lora_folder": settings.lora_folder, **settings.model}
        events = ZImage.loading(settings.source, **options)
        with closing(events):
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    model: ZImage = end.value
                    return model
                if self._stopped:
                    raise Cancelled
                self._opening(event)

    def _next(self) -> Work | None:
        """Wait for work; free the weights where none comes for long. None: it is over."""
        while True:
            with self._change:
                idle = self._settings.idle_unload if self.is_loaded else 0
                if self._change.wait_for(lambda: self._stopped or self._waiting, idle or None):
                    self._running = None if self._stopped else self._waiting.popleft()
                    return self._running
            self.model.result().unload()  # without the lock, for which the event loop would wait
            self.is_loaded = False

    def _run(self, work: Work, model: ZImage) -> None:
        self._tell(work.id, "running", {})
        self.is_loaded = True
        try:
            Drawing(work, model, self._album, self._tell).run()
        except Cancelled:
            self._tell(work.id, "cancelled", {})
        except Exception as error:
            if not isinstance(error, ZImageError | OSError):
                LOG.exception("a job failed")
            self._tell(work.id, "failed", {"error": refusal_of(error)})
        else:
            self._tell(work.id, "done", {})


class Drawing:
    """One job while it runs."""

    def __init__(self, work: Work, model: ZImage, album: Album, tell: Tell):
        self._work, self._model, self._album, self._tell = work, model, album, tell
        self._images: list[dict[str, Any]] = []
        self._first = 0  # the number of the group's first request

    def run(self) -> None:
        self._hint()
        for group in self._work.plan.groups:
            self._look()
            self._model.set_loras(group.loras)
            self._draw(group)
            self._first += len(group.requests)
        if self._work.plan.sheet is not None:
            self._look()
            files = [self._album.path_of(image["id"]) for image in self._images]
            sheet = draw_sheet(self._work.plan.sheet, files)
            self._keep(sheet, None, kind="sheet")

    def _look(self) -> None:
        if self._work.cancel.is_set():
            raise Cancelled

    def _draw(self, group: Group) -> None:
        events = self._model.stream_all(group.requests)
        with closing(events):
            for event in events:
                self._look()
                if isinstance(event, Result):
                    self._keep(event.image, event.metadata, kind="picture")
                else:
                    picture = self._first + event.job
                    self._tell(self._work.id, _kind(event), self._data(event, picture))

    def _data(self, event: Event, picture: int) -> dict[str, Any]:
        data = {**_plain(event), "picture": picture}
        if isinstance(event, Truncated):
            data["message"] = event.message
        if isinstance(event, Step) and self._work.wants_preview:
            data["preview"] = _webp(event)
        return data

    def _keep(self, picture: Any, metadata: Any, kind: str) -> None:
        image = self._album.add(
            picture, metadata, job=self._work.id, index=len(self._images), kind=kind
        )
        self._images.append(image)
        self._tell(self._work.id, "result", {"image": image})

    def _hint(self) -> None:
        """Tell what a small model draws, where a prompt names nothing of it."""
        model, plan = self._model.capabilities(), self._work.plan
        known = model.vocabulary
        if known is None or plan.loras:
            return
        if not all(known.knows(text) for request in plan.requests for text in request.prompts):
            message = f'this model draws {known.draws}, like "{known.example}"'
            self._tell(self._work.id, "hint", {"message": message})


def _join(thread: threading.Thread) -> None:
    """Wait for a thread to be gone from the system, where that can be seen.

    MLX keeps compiled functions for each thread and drops them after Python's own part of the
    thread has ended. That takes Python's lock: if Python ends meanwhile, the process aborts.
    """
    thread.join()
    task = Path(f"/proc/self/task/{thread.native_id}")
    until = time.monotonic() + LINGERS
    while task.exists() and time.monotonic() < until:
        time.sleep(0.001)


def _kind(event: Event) -> str:
    return type(event).__name__.lower()


def _plain(event: Event) -> dict[str, Any]:
    """Return the fields of an event that are numbers or texts."""
    left_out = ("latents", "draw", "job")
    names = [field.name for field in fields(event) if field.name not in left_out]
    return {name: getattr(event, name) for name in names}


def _webp(step: Step) -> bytes:
    file = io.BytesIO()
    step.preview().save(file, "WEBP", quality=PREVIEW_QUALITY)
    return file.getvalue()
