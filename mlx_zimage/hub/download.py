"""Downloads from the Hub to its cache on this machine: the files that are needed, as events."""

import errno
import json
import re
import shutil
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DownloadError, RequestError
from ..events import Downloaded
from .http import client, headers, refuse_error
from .locate import (
    CONFIGS,
    MODEL_INDEX,
    advice,
    cached,
    check_revision,
    command,
    components,
    local,
    locate,
    offline,
    quote,
    repo_of,
)
from .published import File, Published
from .resume import WrongHashError, kept
from .transfer import Transfers

KINDS = (".json", ".txt", ".safetensors")
FORMS = ("", "bf16", "fp16", "fp32")
"""Forms that a repo may hold the same weights in; the first that it has is fetched."""
WEIGHTS = re.compile(
    r"[^./]+/[^./]+?(?:\.(?P<form>\w+))?(?:-\d+-of-\d+)?\.safetensors(?:\.index(?:\.\w+)?\.json)?"
)
PLAIN_WEIGHTS = re.compile(r"(\d+|model|diffusion_pytorch_model)([.-].*)?\.safetensors")
"""Weights whose names mark their folder as a component, where it has no config.json (mflux)."""
WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Remote:
    """The files of a repo that a download consists of."""

    repo: str
    branch: str | None  # or tag or commit, as requested
    commit: str
    files: tuple[File, ...]
    license: str | None = None  # in the Hub's words, such as apache-2.0

    @property
    def size(self) -> int:
        """Bytes of all files, whether they are on this machine or not."""
        return _size(self.files)

    @property
    def left(self) -> int:
        """Bytes that a download would fetch; those that earlier runs have left are kept."""
        missing = self.missing()
        return _size(missing) - sum(kept(self.repo, file) for file in missing)

    def missing(self) -> list[File]:
        """Return the files that are not on this machine."""
        from huggingface_hub import try_to_load_from_cache

        def is_cached(file: File) -> bool:
            path = try_to_load_from_cache(self.repo, file.name, revision=self.commit)
            return isinstance(path, str)

        return [file for file in self.files if not is_cached(file)]


def look_up(source: str | Path, revision: str | None = None) -> Remote:
    """Ask the Hub which files `ZImage.load(source)` needs."""
    check_revision(revision)
    if local(source) is not None:
        raise RequestError(f"{quote(source)} is on this machine; there is nothing to download")
    repo = repo_of(source)
    if offline():
        raise DownloadError(f"{repo} cannot be downloaded: {advice(repo, revision)}")
    try:
        published = list_files(repo, revision)
        commit = published.revision
        names = [file.name for file in published.files]
        index = _model_index(repo, commit) if commit and MODEL_INDEX in names else {}
    except Exception as error:  # each version of the library raises those of its own HTTP client
        raise failure(repo, revision, error) from error
    needed = needed_files(names, index)
    if commit is None or not any(name.endswith(".safetensors") for name in needed):
        raise DownloadError(
            f"{repo} is no checkpoint in the official layout (folders with config.json and "
            f"weights); fetch the file you want (hf download {repo} FILE) and give its path"
        )
    files = tuple(file for file in published.files if file.name in needed)
    return Remote(repo, revision, commit, files, published.license)


def list_files(repo: str, revision: str | None) -> Published:
    """Ask the Hub for all files of a repo, with their sizes and hashes."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=10)
    files = tuple(
        File(entry.rfilename, entry.size or 0, getattr(entry.lfs, "sha256", None) or entry.blob_id)
        for entry in info.siblings or []
    )
    terms = [tag for tag in info.tags or [] if tag.startswith("license:")]
    return Published(repo, info.sha, terms[0].partition(":")[2] if terms else None, files)


def fetching(
    source: str | Path, *, download: bool, revision: str | None = None
) -> Generator[Downloaded, None, Path]:
    """Return the path of a model, after fetching it if it is not complete and `download` is true.

    To cancel, close the generator.
    """
    if download and local(source) is not None:
        raise RequestError(
            f"download is for the Hub, and {quote(source)} is on this machine; leave it out"
        )
    try:
        return locate(source, revision)
    except DownloadError:
        if not download:
            raise
    return (yield from fetch(look_up(source, revision)))


def download(source: str | Path, revision: str | None = None) -> Generator[Downloaded, None, None]:
    """Fetch what `ZImage.load(source)` needs, as events. To cancel, close the generator."""
    yield from fetch(look_up(source, revision))


def fetch(remote: Remote) -> Generator[Downloaded, None, Path]:
    """Fetch the files of `remote` that are not on this machine, and return their folder."""
    yield from transfer(remote)
    return cached(remote.repo, remote.branch)


def transfer(remote: Remote) -> Generator[Downloaded, None, None]:
    """Fetch the files of `remote` that are not on this machine."""
    missing = remote.missing()
    _check_disk(remote.repo, remote.left)
    # Small files first: configs and indexes say what else must come. One file is fetched by the
    # branch's name, so that the cache knows what the branch is: at once where model_index.json then
    # tells a complete folder from the rest of an interrupted download, else when all others are.
    anchor = next((file for file in remote.files if file.name == MODEL_INDEX), remote.files[0])
    others = sorted((f for f in missing if f != anchor), key=lambda file: file.size or 0)
    by_branch = (remote.branch or "main", [anchor])
    rounds = [by_branch, (remote.commit, others)]
    done, last = remote.size - _size([anchor, *others]), -1
    for revision, files in rounds if anchor.name == MODEL_INDEX else rounds[::-1]:
        for name, count in _transferred(remote, revision, files) if files else ():
            if done + count > last:
                last = done + count
                yield Downloaded(name, last, remote.size)
        done += _size(files)


def _transferred(
    remote: Remote, revision: str, files: Sequence[File]
) -> Generator[tuple[str, int], None, None]:
    """Fetch files side by side; yield the latest name and the bytes so far."""
    transfers = Transfers(remote.repo, revision, files)
    try:
        yield from transfers.progress()
    finally:
        transfers.stop()
    if isinstance(transfers.error, WrongHashError):
        raise DownloadError(
            f"{transfers.error} of {remote.repo} arrived with another hash than the Hub lists, and "
            f"was removed; run again: {command(remote.repo, remote.branch)}"
        ) from transfers.error
    if transfers.error is not None:
        raise failure(remote.repo, remote.branch, transfers.error) from transfers.error


def _size(files: Sequence[File]) -> int:
    return sum(file.size or 0 for file in files)


def _check_disk(repo: str, size: int) -> None:
    """Raise where the cache's disk has no room for `size` bytes."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folder = next(place for place in (cache, *cache.parents) if place.exists())
    if size > (free := shutil.disk_usage(folder).free):
        raise DownloadError(
            f"{repo} needs {size / 1e9:.1f} GB in {cache}, and {free / 1e9:.1f} GB are free; make "
            "room, or set HF_HUB_CACHE to another folder"
        )


def _model_index(repo: str, commit: str) -> dict[str, Any]:
    """Read a repo's model_index.json; the cache stays as it is."""
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    path = try_to_load_from_cache(repo, MODEL_INDEX, revision=commit)
    if isinstance(path, str):
        text = Path(path).read_text("utf-8")
    else:
        url = hf_hub_url(repo, MODEL_INDEX, revision=commit)
        response = client().get(url, headers=headers(), timeout=10)
        refuse_error(response)
        text = response.text
    index = json.loads(text)
    return index if isinstance(index, dict) else {}


def needed_files(names: Sequence[str], index: Mapping[str, Any]) -> set[str]:
    """Return the files of a repo that a generation needs; `index` is its model_index.json."""
    return _needed(names, components(index) or _component_folders(names))


def _component_folders(names: Sequence[str]) -> list[str]:
    """Return the folders of a repo without model_index.json that hold a component's weights."""
    paths = [name.split("/") for name in names if name.count("/") == 1]
    with_config = {folder for folder, name in paths if name == "config.json"}
    folders = {
        folder
        for folder, name in paths
        if PLAIN_WEIGHTS.fullmatch(name)
        or (name.endswith(".safetensors") and folder in with_config)
    }
    return [*sorted(folders), *CONFIGS]


def _needed(names: Sequence[str], folders: Collection[str]) -> set[str]:
    """Return the index, the folders' configs, and the weights of each in one form."""
    needed = {name for name in names if name == MODEL_INDEX}
    for folder in folders:
        inside = [n for n in names if n.startswith(f"{folder}/") and n.count("/") == 1]
        forms = {name: _form(name) for name in inside if name.endswith(KINDS)}
        available = {form for form in forms.values() if form is not None}
        best = min(available, key=lambda f: (FORMS.index(f) if f in FORMS else 9, f), default="")
        needed |= {name for name, form in forms.items() if form in (None, best)}
    return needed


def _form(name: str) -> str | None:
    """Return the form of weights or of their index; None for any other file."""
    match = WEIGHTS.fullmatch(name)
    return None if match is None else match["form"] or ""


def failure(
    repo: str, revision: str | None, error: BaseException, again: str | None = None
) -> DownloadError:
    """Return an error that says in one line what happened and what to do."""
    if type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__ is not None:
        error = error.__cause__  # what kept the library from reaching the Hub
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    again = (
        again or f"try again later: {command(repo, revision)} (the model demo needs no download)"
    )
    if type(error).__name__ == "RevisionNotFoundError":
        return DownloadError(f"{repo} has no revision {revision!r}; leave it out, or name another")
    if status in (401, 403):
        reason = "it does not exist, or needs a token: run hf auth login, or set HF_TOKEN"
    elif status == 404:
        reason = "there is no such repository or file on the Hub"
    elif status is not None:
        reason = f"the Hub answers with status {status}; {again}"
    elif isinstance(error, OSError) and error.errno in WRITING:
        reason = f"the cache cannot be written ({reason}); make room, or set HF_HUB_CACHE"
    elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        reason = f"its {MODEL_INDEX} is broken ({reason})"
    else:
        reason = f"the Hub cannot be reached ({reason}); {again}"
    return DownloadError(f"{repo} cannot be downloaded: {reason}")
