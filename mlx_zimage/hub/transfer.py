"""A repo's files on their way from the Hub to the cache, several at once.

huggingface_hub begins a file anew in each run. Here `resume` brings the bytes to where
huggingface_hub looks for them, which then adds the file to its cache as it does its own. The
transfers run in threads, so that the consumer of the progress can stop at any time.
"""

import threading
import time
from collections.abc import Generator, Sequence
from queue import Empty, SimpleQueue

from .published import File
from .resume import StoppedError, fetch_file

AT_ONCE = 4  # files
PROGRESS_SECONDS = 0.1  # between two reports
STOP_SECONDS = 5  # stopped transfers may take to end


class Transfers:
    """Running downloads of a repo's files; `error` is set once they have ended with one."""

    def __init__(self, repo: str, revision: str, files: Sequence[File]):
        self.error: Exception | None = None
        self._repo, self._revision = repo, revision
        self._waiting: SimpleQueue[File] = SimpleQueue()
        for file in files:
            self._waiting.put(file)
        self._lock, self._latest, self._total = threading.Lock(), "", 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in files[:AT_ONCE]]
        for thread in self._threads:
            thread.start()

    def progress(self) -> Generator[tuple[str, int], None, None]:
        """Yield the latest file and the bytes so far, every PROGRESS_SECONDS and at the end."""
        most = 0  # a file that is begun anew does not turn the progress back
        for thread in self._threads:
            while thread.is_alive():
                thread.join(PROGRESS_SECONDS)
                with self._lock:
                    name, total = self._latest, self._total
                if total > most and thread.is_alive():
                    most = total
                    yield name, most
        yield self._latest, max(most, self._total)

    def stop(self) -> None:
        """End the transfers that still run, and wait until they have."""
        self._stop.set()
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))

    def _run(self) -> None:
        from huggingface_hub import hf_hub_download

        try:
            while not self._stop.is_set():
                file = self._waiting.get_nowait()

                def count(size: int, name: str = file.name) -> None:
                    with self._lock:
                        self._latest, self._total = name, self._total + size

                fetch_file(self._repo, self._revision, file, count, self._stop)
                hf_hub_download(self._repo, file.name, revision=self._revision)
        except (Empty, StoppedError):
            pass
        except Exception as error:  # for the thread that consumes the progress
            self.error = self.error or error
            self._stop.set()
