"""The service that every API of the server uses: orders in, jobs and happenings out.

It belongs to one event loop. The owner's thread reaches it through `call_soon_threadsafe` alone.
"""

import asyncio
import base64
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import Capabilities, ZImage, ZImageError
from .estimates import estimated
from .failures import Refusal, cancelled, refusal_of
from .feed import Feed, Happening
from .history import History
from .jobs import PREVIEW_SECONDS, Job, Work, small
from .loras import LoraShelf
from .orders import Order
from .owner import Opening, Owner
from .plans import make_plan
from .settings import Settings

KEPT_JOBS, KEPT_SECONDS = 100, 3600.0
"""Jobs that have ended and are still known, and for how long."""


@dataclass(frozen=True)
class Facts:
    """The open model, and what clients may know of it."""

    model: ZImage
    name: str  # never a path
    aliases: tuple[str, ...]
    capabilities: Capabilities
    opened: int  # the time in seconds


class Service:
    """One model, its queue, an opened history, and those who follow."""

    def __init__(self, settings: Settings, history: History, opening: Opening = lambda event: None):
        self.settings, self.history = settings, history
        self.shelf = LoraShelf(settings)
        self.owner = Owner(settings, history, self._tell_from_thread, opening)
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: list[Job] = []  # in the order of drawing; the running one is not in it
        self._planning = 0
        self._feed, self._number, self._closing = Feed(), 0, False
        self._began = int(time.time())
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin, on the running loop; the model opens in the owner's thread."""
        self._loop = asyncio.get_running_loop()
        self.owner.start()

    async def stop(self) -> None:
        """End every job, and wait for the owner's thread."""
        self.leave()
        await asyncio.to_thread(self.owner.stop)

    def leave(self) -> None:
        """End the streams of all followers, so that their connections close."""
        self._closing = True
        for job in [*self._queue]:
            self.cancel(job.id)
        for job in self._jobs.values():
            job.work.cancel.set()
            job.feed.end()
        self._feed.end()

    async def facts(self) -> Facts:
        """Wait until the model is open, and return the facts about it."""
        try:
            # Shielded: one client that leaves must not give up the model for all.
            model = await asyncio.shield(asyncio.wrap_future(self.owner.model))
        except Exception as error:
            raise refusal_of(error) from error
        capabilities = await asyncio.to_thread(model.capabilities)
        name = _name(self.settings.source)
        aliases = (name, self.settings.source, f"z-image-{capabilities.model}")
        return Facts(model, name, tuple(dict.fromkeys(aliases)), capabilities, self._began)

    async def loras(self) -> list[dict[str, Any]]:
        """Return the LoRAs that may be named."""
        facts = await self.facts()
        return await asyncio.to_thread(self.shelf.list, facts.model)

    async def submit(self, order: Order) -> Job:
        """Judge an order and queue it; a Refusal is raised where it cannot be drawn."""
        self._check_queue()
        self._planning += 1
        try:
            facts = await self.facts()
            await asyncio.to_thread(self.shelf.check, order.names)
            plan = await self._judged(make_plan, order, facts.model)
            shown = await asyncio.to_thread(lambda: small(plan.requests[0].to_dict()))
        finally:
            self._planning -= 1
        if self._closing:
            raise Refusal(503, "the server is stopping", "stopping")
        job = Job(Work(plan), shown)
        self._jobs[job.id] = job
        self._queue.append(job)
        job.position = len(self._queue)
        self.owner.put(job.work)
        self._publish(job, "state", job.view())
        return job

    async def estimate(self, order: Order) -> dict[str, Any]:
        """Return the memory that an order would take, and whether it fits."""
        facts = await self.facts()
        await asyncio.to_thread(self.shelf.check, order.names)
        estimate: dict[str, Any] = await self._judged(estimated, order, facts.model)
        return estimate

    def job(self, id: str) -> Job:
        job = self._jobs.get(id)
        if job is None:
            raise Refusal(404, "there is no such job; it may have ended long ago", "not_found")
        return job

    def jobs(self) -> list[Job]:
        """Return the jobs that are known, the newest first."""
        return [*reversed(self._jobs.values())]

    def cancel(self, id: str) -> Job:
        """Cancel a job: one that waits at once, one that runs at its next event."""
        job = self.job(id)
        job.work.cancel.set()
        if job.state == "queued" and self.owner.withdraw(job.work):
            self._end(job, "cancelled", cancelled())
        return job

    def want_preview(self, job: Job) -> None:
        """Have previews drawn for a while."""
        until = time.monotonic() + PREVIEW_SECONDS
        job.work.previews_until = max(job.work.previews_until, until)

    async def follow(
        self, job: Job, *, beats: bool = False, previews: bool = True
    ) -> AsyncGenerator[Happening, None]:
        """Yield the job's state now, and what happens to it until it ends."""
        follower = job.feed.join()
        if job.has_ended or self._closing:
            follower.end()
        job.watchers += previews
        self._watch()
        try:
            yield Happening(self._number, "state", {"type": "state", "job": job.id, **job.view()})
            async for happening in follower.read(beats=beats):
                yield happening
        finally:
            job.feed.leave(follower)
            job.watchers -= previews
            self._watch()

    async def follow_all(self) -> AsyncGenerator[Happening, None]:
        """Yield all jobs as they are now, and what happens to any of them."""
        follower = self._feed.join()
        if self._closing:
            follower.end()
        self._watch()
        try:
            jobs = [job.view() for job in self.jobs()]
            yield Happening(self._number, "snapshot", {"type": "snapshot", "jobs": jobs})
            async for happening in follower.read(beats=True):
                yield happening
        finally:
            self._feed.leave(follower)
            self._watch()

    async def finished(self, job: Job) -> Job:
        """Wait for the end of a job."""
        async with aclosing(self.follow(job, previews=False)) as happenings:
            async for _ in happenings:
                pass
        return job

    def removed(self, image: str) -> None:
        """Tell followers that a picture is no longer in the history."""
        self._put(None, "removed", {"id": image})

    @property
    def _waits(self) -> int:
        return len(self._queue) + self._planning

    def _check_queue(self) -> None:
        if self._waits >= self.settings.queue:
            raise Refusal(
                429, f"{self.settings.queue} jobs wait already; ask again later", "queue_full"
            )

    async def _judged(self, judge: Any, *arguments: Any) -> Any:
        """Call what asks the model, in a thread, and turn its errors into a Refusal."""
        try:
            return await asyncio.to_thread(judge, *arguments)
        except (ZImageError, OSError) as error:
            raise refusal_of(error) from error

    def _tell_from_thread(self, id: str, type: str, data: Mapping[str, Any]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(self._tell, id, type, dict(data))

    def _tell(self, id: str, type: str, data: dict[str, Any]) -> None:
        """Take what the owner's thread tells, on the loop."""
        job = self._jobs.get(id)
        if job is None:
            return
        if type == "running":
            self._queue.remove(job)
            job.begin()
            self._watch()
            self._publish(job, "state", job.view())
            self._renumber()
        elif type in ("done", "failed", "cancelled"):
            error = cancelled() if type == "cancelled" else data.get("error")
            self._end(job, type, error)
        else:
            preview = data.pop("preview", None)
            job.take(type, data)
            if type == "step":
                data["seconds_left"] = job.progress.seconds_left
            if preview is not None:
                job.preview = preview
                data["preview"] = f"data:image/webp;base64,{base64.b64encode(preview).decode()}"
            self._publish(job, type, data)

    def _end(self, job: Job, state: Any, error: Refusal | None) -> None:
        if job in self._queue:
            self._queue.remove(job)
        job.end(state, error)
        self._publish(job, "state", job.view())
        job.feed.end()
        self._renumber()
        self._forget()

    def _renumber(self) -> None:
        """Tell those that wait their new positions."""
        for position, job in enumerate(self._queue, 1):
            if job.position != position:
                job.position = position
                self._publish(job, "state", job.view())

    def _forget(self) -> None:
        """Drop jobs that have ended, beyond a number or long ago."""
        ended = [job for job in self._jobs.values() if job.has_ended]
        surplus, oldest = len(ended) - KEPT_JOBS, time.time() - KEPT_SECONDS
        for number, job in enumerate(ended):
            if number < surplus or (job.finished or oldest) < oldest:
                del self._jobs[job.id]

    def _watch(self) -> None:
        """Have previews drawn for those jobs that somebody follows."""
        for job in self._jobs.values():
            if job.watchers or len(self._feed):
                job.work.previews_until = math.inf
            elif job.work.previews_until == math.inf:
                job.work.previews_until = 0.0

    def _publish(self, job: Job, type: str, data: Mapping[str, Any]) -> None:
        self._put(job, type, {"type": type, "job": job.id, **data})

    def _put(self, job: Job | None, type: str, data: dict[str, Any]) -> None:
        self._number += 1
        happening = Happening(self._number, type, {"type": type, **data})
        if job is not None:
            job.feed.put(happening)
        self._feed.put(happening)


def _name(source: str) -> str:
    """Return a model's name for clients: a path's last part, so that no folder is told."""
    is_path = source.startswith(("/", ".", "~")) or Path(source).expanduser().exists()
    return Path(source).name if is_path else source
