"""Jobs: what becomes of an order. Their state is changed on the event loop alone."""

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .failures import Refusal
from .feed import Feed
from .plans import Plan

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
BIG = ("image", "mask", "latents", "prompt_embeds")
"""Fields of a request that are left out where many jobs or pictures are listed."""
PREVIEW_SECONDS = 10.0
"""How long previews are drawn for somebody who asked for one."""


@dataclass(eq=False)
class Work:
    """The part of a job that the owner's thread takes: the plan, and what it looks at."""

    plan: Plan
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    cancel: threading.Event = field(default_factory=threading.Event)
    previews_until: float = 0.0  # by time.monotonic; infinite while somebody follows

    @property
    def wants_preview(self) -> bool:
        return time.monotonic() < self.previews_until


class Job:
    """An order on its way."""

    def __init__(self, work: Work, request: dict[str, Any]):
        self.work, self.feed = work, Feed()
        self.request = request  # the first one, without the big fields
        self.watchers = 0  # followers who are shown previews
        self.state: State = "queued"
        self.position: int | None = None  # 0 while it runs
        self.created = time.time()
        self.started: float | None = None
        self.finished: float | None = None
        self.images: list[dict[str, Any]] = []
        self.sheet: dict[str, Any] | None = None
        self.error: Refusal | None = None
        self.hint: str | None = None
        self.truncated: dict[str, Any] | None = None
        self.preview: bytes | None = None  # the newest one, WebP
        self.progress = Progress(work.plan)

    @property
    def id(self) -> str:
        return self.work.id

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def view(self) -> dict[str, Any]:
        """Return the job as JSON shows it."""
        plan = self.work.plan
        loras = [{"name": str(lora.source), "scale": lora.scale} for lora in plan.loras]
        return {
            "id": self.id,
            "state": self.state,
            "position": self.position,
            "created": self.created,
            "started": self.started,
            "finished": self.finished,
            "request": self.request,
            "count": plan.count,
            "loras": loras,
            "sweep": _sweep(plan),
            **self.progress.view(),
            "images": self.images,
            "sheet": self.sheet,
            "error": None if self.error is None else self.error.to_dict(),
            "hint": self.hint,
            "truncated": self.truncated,
            "events": f"/api/jobs/{self.id}/events",
        }

    def take(self, type: str, data: Mapping[str, Any]) -> None:
        """Change the state by what the owner's thread tells."""
        if type == "result":
            image = data["image"]
            if image["kind"] == "sheet":
                self.sheet = image
            else:
                self.images.append(image)
        elif type == "hint":
            self.hint = data["message"]
        elif type == "truncated":
            self.truncated = {"lost": data["lost"], "limit": data["limit"]}
        else:
            self.progress.take(type, data)

    def begin(self) -> None:
        self.state, self.started, self.position = "running", time.time(), 0

    def end(self, state: State, error: Refusal | None = None) -> None:
        self.state, self.error, self.position = state, error, None
        self.finished, self.preview = time.time(), None
        self.progress.seconds_left = None


class Progress:
    """How far a job is."""

    def __init__(self, plan: Plan):
        self._requests = len(plan.requests)
        self.phase, self.component, self.picture = "", "", 0
        self.step, self.steps = 0, plan.requests[0].steps or 0
        self.seconds_left: float | None = None
        self._spent, self._done = 0.0, 0  # in steps

    def view(self) -> dict[str, Any]:
        names = ("phase", "component", "picture", "step", "steps", "seconds_left")
        return {name: getattr(self, name) for name in names}

    def take(self, type: str, data: Mapping[str, Any]) -> None:
        if type == "started":
            self.phase, self.component = data["phase"], data["component"]
        elif type == "step":
            self.step, self.steps = data["number"], data["total"]
            self._spent, self._done = self._spent + data["seconds"], self._done + 1
            left = self.steps - self.step + self.steps * (self._requests - 1 - data["picture"])
            self.seconds_left = self._spent / self._done * left
        self.picture = data.get("picture", self.picture)


def small(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's fields without the big ones."""
    return {name: value for name, value in request.items() if name not in BIG}


def _sweep(plan: Plan) -> dict[str, Any] | None:
    if plan.sheet is None:
        return None
    return {"rows": list(plan.sheet.rows), "columns": list(plan.sheet.columns)}
