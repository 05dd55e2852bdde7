"""From what a user names to a folder or file on this machine. The network is not touched here."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import CheckpointError, DownloadError, RequestError
from ..files import read_json
from ..weights.safetensors import index_of
from ..weights.tensor import PARTS, Part

DEMO = Path(__file__).parents[1] / "demo"
"""The checkpoint that comes with the package."""
NAMES = {"turbo": "Tongyi-MAI/Z-Image-Turbo", "base": "Tongyi-MAI/Z-Image"}
CONTENTS = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
TOKENIZERS = ("tokenizer/tokenizer.json", "tokenizer/vocab.json")


def locate(source: str | Path, revision: str | None = None, parts: Sequence[Part] = PARTS) -> Path:
    """A path as it is; a name or a repo id from the Hub's cache, if it is whole there.

    `parts`: those whose weights are needed.
    """
    path = local(source)
    if path is not None:
        if revision is not None:
            raise RequestError(f"a revision is for the Hub, and {path} is here; leave it out")
        return path
    repo = repo_of(source)
    folder = _cached(repo, revision)
    lacking = None if folder is None else _lacking(folder, parts)
    if folder is None or lacking:
        state = f"here only in part (it lacks {lacking})" if lacking else "not on this machine"
        raise DownloadError(
            f"{repo} is {state}, and nothing is downloaded unasked; "
            f"run: {command(repo, revision)} (the model named demo is here already)"
        )
    return folder


def local(source: str | Path) -> Path | None:
    """The path, where `source` is one that exists."""
    try:
        path = DEMO if source == "demo" else Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, no such home
        raise CheckpointError(f"no such checkpoint: {str(source)[:80]!r}: {error}") from error


def repo_of(source: str | Path) -> str:
    repo = NAMES.get(str(source), str(source))
    is_file = repo.endswith((".safetensors", ".gguf", ".json"))
    odd = any(part in ("", ".", "..", "~") for part in repo.split("/"))
    if repo.count("/") != 1 or odd or is_file:
        raise CheckpointError(
            f"no such checkpoint: {source}; give a folder, a file, a Hub repo id (owner/name), or "
            f"one of demo, {', '.join(NAMES)}"
        )
    return repo


def command(repo: str, revision: str | None) -> str:
    """What a user types to have it."""
    name = {repo: name for name, repo in NAMES.items()}.get(repo, repo)
    return f"mlx-zimage download {name}" + (f" --revision {revision}" if revision else "")


def _cached(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        nothing: list[str] = []  # of its files is asked for: what must be there is judged here
        found = snapshot_download(
            repo, revision=revision, allow_patterns=nothing, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"no such checkpoint: {repo}: {reason}") from error
    return Path(found)


def _lacking(folder: Path, parts: Sequence[Part]) -> str | None:
    """The first file that a download which was stopped had not reached."""
    wanted: list[str] = []
    if is_whole := (folder / CONTENTS).is_file():
        wanted = [SCHEDULER, *(f"{part}/config.json" for part in PARTS)]
        if not any((folder / name).is_file() for name in TOKENIZERS):
            wanted.append(TOKENIZERS[0])
    for part in [part for part in parts if is_whole or (folder / part).is_dir()]:
        index = index_of(folder / part)
        names = read_json(index).get("weight_map") if index else None
        if isinstance(names, dict):
            wanted += [f"{part}/{name}" for name in sorted({*map(str, names.values())})]
        elif not any((folder / part).glob("*.safetensors")):
            wanted.append(f"{part}/*.safetensors")
    return next((name for name in wanted if not (folder / name).is_file()), None)
