"""Resolving a source (a name, a Hub repo id or a path) to a path, without touching the network.

No component is known by name: `model_index.json` says which folders a repo consists of, and an
index inside a folder says which files hold its weights.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, DownloadError, RequestError
from ..files import read_json

DEMO = Path(__file__).parents[1] / "demo"
"""The checkpoint that comes with the package."""
NAMES = {"turbo": "Tongyi-MAI/Z-Image-Turbo", "base": "Tongyi-MAI/Z-Image"}
"""Repos by their short names."""
MODEL_INDEX = "model_index.json"
CONFIGS = {
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "scheduler": ("scheduler_config.json",),
}
"""Folders that hold no model: one of these files must be in them."""
WITHOUT_WEIGHTS = ("Tokenizer", "Scheduler", "Processor", "FeatureExtractor")
"""Words in the names of classes that `model_index.json` lists and that have no weights."""
REPO = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
SHOWN = 80  # characters of a source that a message quotes


def locate(
    source: str | Path, revision: str | None = None, *, weights: Sequence[str] | None = None
) -> Path:
    """Return the path of a model that is on this machine.

    A name (demo, turbo, base) or a Hub repo id is looked up in the Hub's cache, and must be
    complete there; a path is returned as it is. A name wins over a folder of the same name, which
    is written ./turbo. `weights` names the component folders whose weights are needed (default:
    all that the repo has).
    """
    check_revision(revision)
    path = local(source)
    if path is not None:
        if revision is not None:
            raise RequestError(
                f"a revision is for the Hub, and {quote(source)} is on this machine; leave it out"
            )
        return path
    try:
        return cached(repo_of(source), revision, weights=weights)
    except DownloadError as error:
        if isinstance(source, str) and os.path.exists(source):  # only where a name wins over it
            raise DownloadError(f"{error}; for the folder of that name write ./{source}") from error
        raise


def cached(repo: str, revision: str | None, *, weights: Sequence[str] | None = None) -> Path:
    """Return a repo's folder in the Hub's cache, or raise where it is not complete."""
    folder = _snapshot(repo, revision)
    missing = None if folder is None else _missing(folder, weights)
    if folder is None or missing:
        state = "not" if folder is None else f"incomplete ({missing} is missing)"
        raise DownloadError(f"{repo} is {state} on this machine; {advice(repo, revision)}")
    return folder


def advice(repo: str, revision: str | None) -> str:
    """Return what to do about a repo that is not on this machine."""
    variable = offline()
    verb = f"{variable} is set: unset it and run" if variable else "run"
    return f"{verb}: {command(repo, revision)} (the model demo needs no download)"


def local(source: str | Path) -> Path | None:
    """Return the path that `source` stands for, or None where it is a name or repo id."""
    if not isinstance(source, str | Path):
        raise RequestError(
            f"a model must be a name, a Hub repo id or a path, not {quote(repr(source))}"
        )
    if source == "":
        raise CheckpointError(f"no such checkpoint: ''; {_choices()}")
    if source in NAMES:  # a Path never is: it means the folder of that name
        return None
    try:
        path = DEMO if source == "demo" else Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, no such home
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"no such checkpoint: {quote(source)}: {reason}") from error


def repo_of(source: str | Path) -> str:
    """Return the Hub repo id that `source` stands for."""
    repo = NAMES.get(source, source) if isinstance(source, str) else str(source)
    is_file = isinstance(source, Path) or repo.endswith((".safetensors", ".gguf", ".json"))
    if is_file or not REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        raise CheckpointError(f"no such checkpoint: {quote(source)}; {_choices()}")
    return repo


def _choices() -> str:
    names = ", ".join(NAMES)
    return f"give a folder, a file, a Hub repo id (owner/name), or one of demo, {names}"


def check_revision(revision: str | None) -> None:
    """Raise where `revision` cannot be a branch, tag or commit."""
    if revision is not None and (not isinstance(revision, str) or not revision.strip()):
        raise RequestError(
            f"a revision must be a branch, a tag or a commit, not {quote(repr(revision))}"
        )


def quote(source: object) -> str:
    """Return the text of a source for a message: on one line and not too long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(source)[: SHOWN + 1])
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def command(repo: str, revision: str | None) -> str:
    """Return the shell command that downloads a repo."""
    name = {repo: name for name, repo in NAMES.items()}.get(repo, repo)
    return f"mlx-zimage download {name}" + (f" --revision {revision}" if revision else "")


def offline() -> str | None:
    """Return the environment variable that forbids huggingface_hub to use the network, if any."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return None
    variables = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in variables if os.environ.get(name)), variables[0])


def components(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the class of each folder that a `model_index.json` names."""
    return {
        folder: entry[1]
        for folder, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(e, str) for e in entry)
    }


def _snapshot(repo: str, revision: str | None) -> Path | None:
    """Return a repo's folder in the Hub's cache, complete or not, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    no_files: list[str] = []  # the folder alone: which files it must hold is judged by this module
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=no_files, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"no such checkpoint: {quote(repo)}: {quote(lines[0])}") from error
    return Path(folder)


def _missing(folder: Path, weights: Sequence[str] | None) -> str | None:
    """Return the first file that an interrupted download did not reach."""
    names = _required(folder, weights)
    return next((name for name in names if not (folder / name).is_file()), None)


def _required(folder: Path, weights: Sequence[str] | None) -> Iterator[str]:
    """Yield the files that a snapshot must hold, or a pattern where nothing matches it."""
    classes: dict[str, str] = {}
    if (folder / MODEL_INDEX).is_file():
        classes = components(read_json(folder / MODEL_INDEX))
    models = [
        name
        for name, kind in classes.items()
        if name not in CONFIGS and not any(word in kind for word in WITHOUT_WEIGHTS)
    ]
    yield from (f"{name}/config.json" for name in models)
    for name in [name for name in classes if name in CONFIGS]:
        if not any((folder / name / file).is_file() for file in CONFIGS[name]):
            yield f"{name}/{CONFIGS[name][0]}"
    if not classes:  # a folder of another program's layout, which has no model_index.json
        models = sorted({path.parent.name for path in folder.glob("*/*.safetensors*")})
    for name in [name for name in models if weights is None or name in weights]:
        yield from _weight_files(folder, name)


def _weight_files(folder: Path, component: str) -> Iterator[str]:
    indexes = [
        *(folder / component).glob("*.safetensors.index.json"),
        *(folder / component).glob("*.safetensors.index.*.json"),
    ]
    shards = read_json(indexes[0]).get("weight_map") if indexes else None
    if isinstance(shards, dict):
        yield from (f"{component}/{name}" for name in sorted({*map(str, shards.values())}))
    elif not any((folder / component).glob("*.safetensors")):
        yield f"{component}/*.safetensors"
