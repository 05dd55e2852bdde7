"""From what a user names to a folder on this machine."""

from pathlib import Path

from ..errors import CheckpointError, DownloadError, RequestError

DEMO = Path(__file__).parents[1] / "demo"
"""The checkpoint that comes with the package."""
NAMES = {"turbo": "Tongyi-MAI/Z-Image-Turbo", "base": "Tongyi-MAI/Z-Image"}
FILES = ["*.json", "*.safetensors", "tokenizer/*"]
"""What a generation needs of a repository: configs, weights and the tokenizer."""


def locate(source: str | Path, *, download: bool = False, revision: str | None = None) -> Path:
    """A path as it is; a name or a repo id from the Hub's cache, or downloaded if allowed."""
    if source == "demo":
        source = DEMO
    try:
        path = Path(source).expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, no such home
        raise CheckpointError(f"no such checkpoint: {str(source)[:80]!r}: {error}") from error
    if exists:
        if download or revision is not None:
            raise RequestError(
                f"download and revision are for the Hub, and {path} is here; leave them out"
            )
        return path
    repo = NAMES.get(str(source), str(source))
    if repo.count("/") != 1 or any(part in ("", ".", "..", "~") for part in repo.split("/")):
        raise CheckpointError(
            f"no such checkpoint: {source}; give a folder, a file, a Hub repo id (owner/name), or "
            f"one of demo, {', '.join(NAMES)}"
        )
    return _from_hub(repo, download, revision)


def _from_hub(repo: str, download: bool, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=FILES, local_files_only=not download
        )
    except LocalEntryNotFoundError as error:
        if download:
            raise DownloadError(f"{repo} cannot be downloaded: the Hub does not answer") from error
        at = f" --revision {revision}" if revision else ""
        raise DownloadError(
            f"{repo} is not on this machine, and nothing is downloaded unasked; "
            f"run: hf download {repo}{at} (the model named demo is here already)"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DownloadError(f"{repo} cannot be downloaded: {reason}") from error
    return Path(folder)
