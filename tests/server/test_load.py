"""Many clients at once: nothing is lost or doubled, and every follower sees the same states."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Finished, Request, Result, Started, Step, ZImage, read_metadata
from mlx_zimage.server.history import History
from mlx_zimage.server.jobs import ENDED
from mlx_zimage.server.orders import Order
from mlx_zimage.server.service import Service
from mlx_zimage.server.settings import Settings

from .conftest import SMALL, WAIT, Running
from .test_lifecycle import Program

STEPS = 3
ROOT = Path(__file__).parents[2]
PICTURE = Image.new("RGB", (16, 16), "grey")


class Sketcher:
    """A stand-in for the model: it judges as the demo does, and draws grey pictures at once."""

    def __init__(self, real: ZImage):
        self._real = real
        self._latents: Any = np.zeros((1, 1, 1, 1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def set_loras(self, loras: Any) -> None: ...

    def stream_all(self, requests: Any) -> Any:
        for job, request in enumerate(requests):
            yield Started("denoise", job=job)
            for number in range(1, STEPS + 1):
                yield Step(number, STEPS, 0.5, 0.001, self._latents, job, lambda index: PICTURE)
            yield Finished("denoise", 0.003, job=job)
            metadata = {"request": request.to_dict(), "index": 0}
            empty: Any = np.zeros(())
            yield Result(PICTURE, empty, empty, request, 0, metadata, job)


async def send(port: int, text: str) -> bytes:
    """Send a request and return the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.replace("\n", "\r\n").encode())
    answer = await reader.read()
    writer.close()
    return answer


def head(port: int, method: str, path: str, body: str = "") -> str:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\n".join(lines) + "\n\n" + body


async def follow(port: int, path: str) -> AsyncIterator[dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(port, "GET", path).replace("\n", "\r\n").encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))
    finally:
        writer.close()


def states_after(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Play a follower's events, as a page does, and return each job's state."""
    jobs: dict[str, Any] = {}
    for event in events:
        if event["type"] == "snapshot":
            jobs = {job["id"]: {**job, "images": [*job["images"]]} for job in event["jobs"]}
        elif event["type"] == "state":
            jobs[event["id"]] = {**event, "images": [*event["images"]]}
        elif event["type"] == "result":
            ids = [image["id"] for image in jobs[event["job"]]["images"]]
            if event["image"]["id"] not in ids:
                jobs[event["job"]]["images"].append(event["image"])
    return {id: (job["state"], [i["id"] for i in job["images"]]) for id, job in jobs.items()}


@pytest.fixture
def sketched(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what runs a server whose model is the stand-in."""
    from mlx_zimage.server.owner import Owner

    real = Owner._open
    monkeypatch.setattr(Owner, "_open", lambda self: Sketcher(real(self)))
    return serve


CLIENTS, JOBS = 20, 200


async def crowd(port: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Let 20 clients queue 200 jobs: 30 % are cancelled, 10 % belong to clients that leave."""
    chance = random.Random(7)
    fates: dict[str, str] = {}
    events: list[dict[str, Any]] = []

    async def watch() -> None:
        ended = set()
        async for event in follow(port, "/api/events"):
            events.append(event)
            if event["type"] == "state" and event["state"] in ENDED:
                ended.add(event["id"])
            if len(ended) == JOBS:
                return

    async def client(number: int) -> None:
        for _ in range(JOBS // CLIENTS):
            fate = chance.choices(("stay", "cancel", "leave"), (60, 30, 10))[0]
            body = json.dumps({**SMALL, "seed": len(fates), "count": chance.choice((1, 1, 3))})
            answer = await send(port, head(port, "POST", "/api/jobs", body))
            job = json.loads(answer.partition(b"\r\n\r\n")[2])
            fates[job["id"]] = fate
            if fate == "cancel":
                await send(port, head(port, "DELETE", f"/api/jobs/{job['id']}"))
            elif fate == "leave":
                async for _event in follow(port, job["events"]):
                    break
            await asyncio.sleep(chance.random() / 50)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    await asyncio.wait_for(watching, WAIT)
    return fates, states_after(events)


@pytest.mark.slow
def test_a_crowd(sketched: Callable[..., Any]) -> None:
    with sketched(queue=300) as own:
        fates, seen = asyncio.run(crowd(own.port))
        known = {job["id"]: job for job in own.ask("GET", "/api/jobs").json["jobs"]}
        pictures = own.ask("GET", "/api/history?limit=500").json
        assert len(fates) == len(seen) == JOBS
        listed = [id for _, images in seen.values() for id in images]
        assert len(listed) == len({*listed}) == pictures["total"]  # none lost, none doubled
        kept = own.ask("GET", "/api/history?limit=500").json["images"]
        assert {image["id"] for image in kept} <= {*listed}
        for id, fate in fates.items():
            state, _ = seen[id]
            assert state == "done" or (fate == "cancel" and state == "cancelled")
            if id in known:  # the oldest are forgotten
                assert (known[id]["state"], [i["id"] for i in known[id]["images"]]) == seen[id]
        assert "cancelled" in {state for state, _ in seen.values()}
        assert own.server.service._queue == []
        assert len(known) <= 101


@pytest.mark.slow
def test_five_hundred_connections(sketched: Callable[..., Any]) -> None:
    async def many(port: int) -> list[dict[str, Any]]:
        followers = [follow(port, "/api/events") for _ in range(500)]
        firsts = await asyncio.gather(*(anext(one) for one in followers))  # type: ignore[arg-type]
        assert {event["type"] for event in firsts} == {"snapshot"}
        answer = await send(port, head(port, "POST", "/api/jobs", json.dumps(SMALL)))
        job = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]

        async def last(one: Any) -> dict[str, Any]:
            async for event in one:
                if event["type"] == "state" and event["state"] in ENDED:
                    await one.aclose()
                    return dict(event)
            raise AssertionError("the stream ended")

        ends = await asyncio.gather(*(last(one) for one in followers))
        assert {event["id"] for event in ends} == {job}
        return [*ends]

    with sketched() as own:
        ends = asyncio.run(many(own.port))
        assert {event["state"] for event in ends} == {"done"}
        assert own.draw()["state"] == "done"
        service = own.server.service
        while len(service._feed):  # the server notices that they are gone
            own.ask("GET", "/health")


@pytest.mark.slow
def test_the_demo_for_several_clients(serve: Callable[..., Any]) -> None:
    """The same with the real model: each gets the picture of its own seed."""

    async def draw(port: int, seed: int) -> tuple[int, str]:
        body = json.dumps({**SMALL, "seed": seed})
        answer = await send(port, head(port, "POST", "/api/jobs", body))
        job = json.loads(answer.partition(b"\r\n\r\n")[2])
        last: dict[str, Any] = {}
        async for event in follow(port, job["events"]):
            last = event
        (image,) = last["images"]
        return seed, image["url"]

    async def all_of(port: int) -> list[tuple[int, str]]:
        return [*await asyncio.gather(*(draw(port, seed) for seed in range(16)))]

    model = ZImage.load("demo")
    with serve() as own:
        for seed, url in asyncio.run(all_of(own.port)):
            file = own.folder / next(p.name for p in own.folder.glob(f"*{url[7:23]}.png"))
            with Image.open(file) as drawn:
                expected = model.generate(**SMALL, seed=seed).image
                assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_cancelling_what_runs_takes_effect_at_the_next_event(tmp_path: Path) -> None:
    """No step is computed after the one that runs when the job is cancelled."""

    async def run() -> list[int]:
        history = History(tmp_path)
        history.open()
        service = Service(Settings(source="demo"), history)
        service.start()
        try:
            job = await service.submit(Order({**SMALL, "steps": 500}))
            steps: list[int] = []
            at = 0
            async for happening in service.follow(job):
                if happening.type == "step":
                    steps.append(happening.data["number"])
                    if happening.data["number"] == 5:
                        service.cancel(job.id)
                        at = job.progress.step  # what the owner may have told in between
            assert job.state == "cancelled"
            assert job.images == []
            return [at, steps[-1]]
        finally:
            await service.stop()
            history.close()

    at, last = asyncio.run(run())
    assert last <= at + 2  # the one that ran, and one that was on its way


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """After each kill -9 the folder is whole: every picture listed opens, with its request."""
    chance, folder = random.Random(3), tmp_path / "pictures"
    command = [sys.executable, str(ROOT / "mlx_zimage_cli.py"), "serve", "--model", "demo"]
    command += ["--port", "0", "--json", "--output-folder", str(folder)]
    total = 0
    for _ in range(30):
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        try:
            program = Program(process)
            listed = program.ask("GET", "/api/history?limit=500")
            assert listed["total"] >= total
            total = listed["total"]
            for image in listed["images"][:5]:
                with closing(program.connect()) as connection:
                    connection.request("GET", image["url"])
                    data = connection.getresponse().read()
                with closing(program.connect()) as connection:
                    connection.request("GET", image["thumbnail"])
                    assert connection.getresponse().status == 200
                assert len(data) == (next(folder.glob(f"*{image['id']}.png"))).stat().st_size
            program.ask("POST", "/api/jobs", {**SMALL, "count": 100})
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.3, 1.5))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        for path in folder.glob("*.png"):
            with Image.open(path) as picture:
                picture.load()
            assert Request.from_dict(read_metadata(path)["request"]).prompt == SMALL["prompt"]
    assert total > 30
    history = History(folder)
    history.open()
    history.close()
    assert [path.name for path in folder.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.slow
def test_nothing_grows(serve: Callable[..., Any]) -> None:
    """After a hundred pictures as many threads, files and bytes in arrays are held as before."""
    import threading

    import mlx.core as mx

    def held(own: Running) -> tuple[int, int, int]:
        files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
        return threading.active_count(), files, mx.get_active_memory()

    with serve() as own:
        for seed in range(10):
            own.draw(seed=seed)
        before = held(own)
        for seed in range(100):
            own.draw(seed=seed)
        after = held(own)
        assert after[0] <= before[0] + 1  # a thread of the pool that was not needed before
        assert after[1] <= before[1] + 1
        assert after[2] <= before[2] * 1.02
