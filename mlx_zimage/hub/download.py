"""From the Hub to its cache on this machine: only the files that are needed, told byte by byte.

huggingface_hub fetches, resumes after a broken connection and keeps the files. It runs in a thread
of its own, so that whoever reads the events may stop at any time.
"""

import re
import shutil
import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import DownloadError, RequestError
from ..files import digest
from ..weights.tensor import PARTS
from .locate import CONTENTS, command, local, locate, repo_of

FOLDERS = (*PARTS, "tokenizer", "scheduler")
KINDS = (".json", ".txt", ".safetensors")
TELL_SECONDS = 0.1  # between two events
STOP_SECONDS = 5  # a cancelled transfer may take to clear up


@dataclass(frozen=True)
class File:
    name: str
    size: int
    sha256: str | None  # of large files, as the Hub knows it


@dataclass(frozen=True)
class Remote:
    """What a download would fetch."""

    repo: str
    branch: str | None  # or tag, as asked for
    commit: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def missing(self) -> list[File]:
        """Those that are not here."""
        from huggingface_hub import try_to_load_from_cache

        def here(file: File) -> bool:
            found = try_to_load_from_cache(self.repo, file.name, revision=self.commit)
            return isinstance(found, str)

        return [file for file in self.files if not here(file)]


@dataclass(frozen=True)
class Downloaded:
    """So many bytes of all the files are here."""

    file: str
    done: int
    total: int


def look_up(source: str | Path, revision: str | None = None) -> Remote:
    """Ask the Hub what it has."""
    from huggingface_hub import HfApi

    repo = repo_of(source)
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=10)
    except Exception as error:  # each version of the library raises those of its own HTTP client
        raise _failed(repo, revision, error) from error
    files = [
        File(entry.rfilename, entry.size or 0, getattr(entry.lfs, "sha256", None))
        for entry in info.siblings or []
    ]
    needed = _needed([file.name for file in files])
    if info.sha is None or not any(name.endswith(".safetensors") for name in needed):
        raise DownloadError(
            f"{repo} holds no transformer, text_encoder and vae folders; fetch the file you want "
            f"(hf download {repo} FILE) and give its path"
        )
    return Remote(repo, revision, info.sha, tuple(f for f in files if f.name in needed))


def find(source: str | Path, *, download: bool, revision: str | None) -> Path:
    """Where it is on this machine; fetched first, if it is not there and that is allowed."""
    if download and local(source) is not None:
        raise RequestError(f"download is for the Hub, and {local(source)} is here; leave it out")
    try:
        return locate(source, revision)
    except DownloadError:
        if not download:
            raise
    for _ in fetch(look_up(source, revision)):
        pass
    return locate(source, revision)


def download(source: str | Path, revision: str | None = None) -> Generator[Downloaded, None, None]:
    """Fetch what `ZImage.load(source)` needs, as events. To cancel, close it."""
    yield from fetch(look_up(source, revision))


def fetch(remote: Remote) -> Generator[Downloaded, None, None]:
    """Files that are here already are not fetched again."""
    from huggingface_hub import constants

    missing = remote.missing()
    needed, cache = sum(file.size for file in missing), Path(constants.HF_HUB_CACHE)
    home = next(place for place in (cache, *cache.parents) if place.exists())
    if needed > (free := shutil.disk_usage(home).free):
        raise DownloadError(
            f"{remote.repo} needs {needed / 1e9:.1f} GB in {cache}, and {free / 1e9:.1f} GB are "
            "free; make room, or set HF_HUB_CACHE to a place elsewhere"
        )
    done = remote.size - needed
    # Small ones first: configs and indexes say what else must come. The one that names the
    # parts comes by the branch's name, so that the cache knows what the branch is.
    missing.sort(key=lambda file: file.size)
    first = [file for file in remote.files if file.name == CONTENTS] or list(remote.files[:1])
    for file in [*first, *(file for file in missing if file not in first)]:
        for count in _fetched(remote, file, by_branch=file in first):
            if count < file.size and file in missing:
                yield Downloaded(file.name, done + count, remote.size)
        done += file.size if file in missing else 0
        yield Downloaded(file.name, done, remote.size)
    locate(remote.repo, remote.branch)  # whole, by its own indexes


def _fetched(remote: Remote, file: File, by_branch: bool) -> Generator[int, None, None]:
    """Bytes so far, while it comes. Its hash is held against the Hub's at the end."""
    transfer = _Transfer(remote.repo, file.name, remote.branch if by_branch else remote.commit)
    try:
        yield from transfer.follow()
    finally:
        transfer.stop()
    if transfer.error is not None:
        raise _failed(remote.repo, remote.branch, transfer.error) from transfer.error
    path = Path(transfer.path)
    if file.sha256 is not None and digest(path) != file.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{file.name} of {remote.repo} came with other bytes than the Hub names, and is "
            f"removed; run again: {command(remote.repo, remote.branch)}"
        )


class _StopError(Exception):
    """Whoever followed the transfer wants no more of it."""


class _Transfer:
    """One file, fetched in a thread."""

    def __init__(self, repo: str, name: str, revision: str | None):
        self.path = ""
        self.error: Exception | None = None
        self._told: SimpleQueue[int] = SimpleQueue()
        self._stop = threading.Event()
        arguments = (repo, name, revision)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def follow(self) -> Generator[int, None, None]:
        count = 0
        while self._thread.is_alive() or not self._told.empty():
            with suppress(Empty):
                count += self._told.get(timeout=TELL_SECONDS)
            while not self._told.empty():
                count += self._told.get()
            yield count

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            with suppress(Exception):  # Xet's threads do not pass on what a progress bar raises
                from huggingface_hub.utils._xet import abort_xet_session

                abort_xet_session()  # type: ignore[no-untyped-call]  # theirs, without types
        self._thread.join(STOP_SECONDS)

    def _run(self, repo: str, name: str, revision: str | None) -> None:
        from huggingface_hub import hf_hub_download

        told, stop = self._told, self._stop

        class Bar:
            """What huggingface_hub tells its progress to."""

            def __init__(self, *_: Any, initial: int = 0, total: int | None = None, **__: Any):
                self.n, self.total = initial, total

            def update(self, n: float | None = 1) -> None:
                if stop.is_set():
                    raise _StopError
                told.put(int(n or 0))

            def update_transfer(self, n: float | None = 1) -> None:
                """Bytes on the wire, where Xet counts them apart from those on disk."""

            def __enter__(self) -> "Bar":
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def __getattr__(self, _: str) -> Any:  # refresh, close, descriptions: nothing to show
                return lambda *_, **__: None

        try:
            self.path = hf_hub_download(repo, name, revision=revision, tqdm_class=Bar)
        except Exception as error:  # it belongs to whoever follows, not to this thread
            self.error = error


def _needed(names: list[str]) -> set[str]:
    """Configs, tokenizer, and the weights of each part once, where they lie in several forms."""
    inside = [n for n in names if n.count("/") == 1 and n.split("/")[0] in FOLDERS]
    chosen = {n for n in names if n == CONTENTS}
    for folder in FOLDERS:
        files = {n: _variant(n) for n in inside if n.startswith(f"{folder}/") and n.endswith(KINDS)}
        there = {variant for variant in files.values() if variant is not None}
        best = min(there, key=lambda v: (VARIANTS.index(v) if v in VARIANTS else 9, v), default="")
        chosen |= {name for name, variant in files.items() if variant in (None, best)}
    return chosen


VARIANTS = ("", "bf16", "fp16", "fp32")
"""Forms of the same weights, the first that is there is taken."""
WEIGHTS = re.compile(
    r"[^./]+/[^./]+?(?:\.(?P<form>\w+))?(?:-\d+-of-\d+)?\.safetensors(?:\.index(?:\.\w+)?\.json)?"
)


def _variant(name: str) -> str | None:
    """Of weights and their index; None for all else."""
    found = WEIGHTS.fullmatch(name)
    return None if found is None else found["form"] or ""


def _failed(repo: str, revision: str | None, error: Exception) -> DownloadError:
    """In one line: what happened, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    again = f"run later: {command(repo, revision)} (the model named demo is here already)"
    if type(error).__name__ == "RevisionNotFoundError":
        return DownloadError(f"{repo} has no revision {revision!r}; leave it out, or name another")
    if status in (401, 403):
        reason = "it is not there, or needs a token: run hf auth login, or set HF_TOKEN"
    elif status == 404:
        reason = "there is no such repository or file on the Hub"
    elif status is not None:
        reason = f"the Hub answers {status}; {again}"
    else:
        reason = f"the Hub cannot be reached ({reason}); {again}"
    return DownloadError(f"{repo} cannot be downloaded: {reason}")
