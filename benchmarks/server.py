"""The local server in figures: what it adds to a picture, and how soon it answers.

    python -m benchmarks.server [--rounds 9] [--pictures 1000]

Each figure comes from the demo. What the server adds is measured against the library in turn, in
one process: a request's first byte sent to the picture's last byte read, less the library's time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_zimage import ZImage, save_png
from mlx_zimage.server.history import History
from mlx_zimage.server.run import Server, bind
from mlx_zimage.server.settings import Settings

PROMPT = "a red circle on a blue background"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pictures", type=int, default=1000, help="for the memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        show("start to listening, s", start_times(place / "a", 5))
        with serving(place / "b") as port:
            added(port, options.rounds, place)
            cancels(port, options.rounds)
            memory(port, options.pictures)


def show(name: str, values: list[float], digits: int = 2) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:<52} median {middle:.{digits}f}  ({low:.{digits}f} to {high:.{digits}f})")


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Run a server with the demo in a thread, and yield its port."""
    settings, ready = Settings(source="demo", port=0, output_folder=folder), threading.Event()
    history = History(folder)
    history.open()
    with closing(history), closing(bind(settings)) as sock:
        server = Server(settings, sock, history, ready.set)
        thread = threading.Thread(target=server.work)
        thread.start()
        try:
            ready.wait()
            yield server.settings.port
        finally:
            server.stop()
            thread.join()


def ask(port: int, method: str, path: str, body: Any = None) -> bytes:
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        return connection.getresponse().read()


def start_times(folder: Path, rounds: int) -> list[float]:
    """Start the command, and return the seconds until it told its address."""
    program = Path(__file__).parents[1] / "mlx_zimage_cli.py"
    command = [sys.executable, str(program), "serve", "--model", "demo", "--port", "0", "--json"]
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        more = ["--output-folder", str(folder)]
        process = subprocess.Popen([*command, *more], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        times.append(time.perf_counter() - begun)
        process.kill()
        process.communicate()
    return times


def added(port: int, rounds: int, place: Path) -> None:
    """Draw with the library and over HTTP in turn, and tell what HTTP adds."""
    model = ZImage.load("demo")
    # The library's picture is also saved, as the server's is.
    ways: dict[str, Callable[[int], Any]] = {
        "library, picture drawn and saved": lambda n: library(model, n, place / f"{n}.png"),
        "/v1/images/generations": lambda n: over_openai(port, n),
        "/api/jobs, followed, file fetched": lambda n: over_jobs(port, n),
    }
    for way in ways.values():
        way(1_000_000)  # loads the weights, compiles
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(number)
            times[name].append((time.perf_counter() - begun) * 1000)
    first = times[next(iter(ways))]
    for name, values in times.items():
        show(f"{name}, ms", values, 1)
        if values is not first:
            differences = [a - b for a, b in zip(values, first, strict=True)]
            show("    more than the library, ms", differences, 1)


def library(model: ZImage, number: int, file: Path) -> None:
    result = model.generate(PROMPT, seed=number)
    save_png(result.image, file, result.metadata)


def over_openai(port: int, number: int) -> None:
    ask(port, "POST", "/v1/images/generations", {"prompt": PROMPT, "seed": number})


def over_jobs(port: int, number: int) -> None:
    job = json.loads(ask(port, "POST", "/api/jobs", {"prompt": PROMPT, "seed": number}))
    last = ask(port, "GET", job["events"]).rsplit(b"data: ", 1)[1]
    ask(port, "GET", json.loads(last)["images"][0]["url"])


def cancels(port: int, rounds: int) -> None:
    """Tell how soon a waiting and a running job are cancelled."""
    waiting, running, steps = [], [], []
    for _ in range(rounds):
        jobs = [
            json.loads(ask(port, "POST", "/api/jobs", {"prompt": PROMPT, "steps": 1000}))
            for _ in range(2)
        ]
        while json.loads(ask(port, "GET", f"/api/jobs/{jobs[0]['id']}"))["step"] < 3:
            pass
        begun = time.perf_counter()
        view = json.loads(ask(port, "DELETE", f"/api/jobs/{jobs[1]['id']}"))
        waiting.append((time.perf_counter() - begun) * 1000)
        assert view["state"] == "cancelled"
        begun = time.perf_counter()
        at = json.loads(ask(port, "DELETE", f"/api/jobs/{jobs[0]['id']}"))["step"]
        while (view := json.loads(ask(port, "GET", f"/api/jobs/{jobs[0]['id']}")))["state"] == (
            "running"
        ):
            pass
        running.append((time.perf_counter() - begun) * 1000)
        steps.append(float(view["step"] - at))
    show("a waiting job is cancelled, ms", waiting, 1)
    show("a running job is cancelled, ms", running, 1)
    show("    steps that it still told", steps, 0)


def memory(port: int, pictures: int) -> None:
    """Draw many small pictures, and tell what is held after a fifth of them and at the end."""
    for number in range(pictures):
        job = json.loads(ask(port, "POST", "/api/jobs", {**SMALL, "seed": number}))
        ask(port, "GET", job["events"])
        if number + 1 in (pictures // 5, pictures):
            arrays = mx.get_active_memory() / 1e6
            print(
                f"after {number + 1} pictures: {resident() / 1e6:.1f} MB resident, arrays "
                f"{arrays:.2f} MB, {threading.active_count()} threads"
            )


def resident() -> int:
    """Return the bytes of this process in memory; on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
