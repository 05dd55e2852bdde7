"""One file on its way from the Hub to the cache.

huggingface_hub fetches it, resumes after a broken connection and stores it. It runs in a thread of
its own, so that the consumer of the progress can stop at any time.
"""

import threading
import time
from collections.abc import Generator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

PROGRESS_SECONDS = 0.1  # between two reports
STOP_SECONDS = 5  # a cancelled transfer may take to clean up


class Transfer:
    """A running download of one file; `path` or `error` is set once it has ended."""

    def __init__(self, repo: str, name: str, revision: str | None):
        self.path = ""
        self.error: Exception | None = None
        self._counts: SimpleQueue[int | None] = SimpleQueue()  # None: the transfer has ended
        self._stop = threading.Event()
        arguments = (repo, name, revision)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def progress(self) -> Generator[int, None, None]:
        """Yield the number of bytes so far, every PROGRESS_SECONDS until the transfer ends."""
        total, running = 0, True
        while running:
            until = time.monotonic() + PROGRESS_SECONDS
            while running and (seconds := until - time.monotonic()) > 0:
                with suppress(Empty):
                    count = self._counts.get(timeout=seconds)
                    total += count or 0
                    running = count is not None
            yield total
        self._thread.join()  # `stop` must not take it for a transfer that runs

    def stop(self) -> None:
        """End the transfer, if it still runs, and wait until it has."""
        self._stop.set()
        if self._thread.is_alive():
            with suppress(Exception):  # Xet's threads do not pass on what a progress bar raises
                from huggingface_hub.utils._xet import abort_xet_session

                abort_xet_session()  # type: ignore[no-untyped-call]  # theirs, without types
        self._thread.join(STOP_SECONDS)

    def _run(self, repo: str, name: str, revision: str | None) -> None:
        from huggingface_hub import hf_hub_download

        try:
            bar = progress_bar(self._counts, self._stop)
            self.path = hf_hub_download(repo, name, revision=revision, tqdm_class=bar)
        except Exception as error:  # for the thread that consumes the progress
            self.error = error
        finally:
            self._counts.put(None)


class _StoppedError(Exception):
    """The consumer wants no more of the transfer."""


def progress_bar(counts: "SimpleQueue[int | None]", stop: threading.Event) -> Any:
    """Return a class that huggingface_hub takes for tqdm, and that counts and stops."""

    class Bar:
        def __init__(self, *_: Any, initial: int = 0, total: int | None = None, **__: Any):
            self.n, self.total = initial, total

        def update(self, n: float | None = 1) -> None:
            if stop.is_set():
                raise _StoppedError
            counts.put(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Ignore the bytes on the wire, which Xet counts apart from those on disk."""

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __getattr__(self, _: str) -> Any:  # refresh, close, descriptions: nothing to show
            return lambda *_, **__: None

    return Bar
