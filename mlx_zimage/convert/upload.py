"""A converted checkpoint published on the Hub."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoint.family import MANIFEST
from ..errors import DownloadError, RequestError
from ..events import Uploaded
from ..files import read_json
from ..hub.locate import REPO, offline, quote

KEPT = (".gitattributes",)
"""Files of a repo that the Hub itself adds."""


def check_upload(repo: str) -> None:
    """Raise unless a repo can be named so, and a token says who publishes."""
    from huggingface_hub import HfApi

    if not REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        raise RequestError(f"an upload goes to a Hub repo id (owner/name), not to {quote(repo)}")
    if variable := offline():
        raise DownloadError(f"nothing can be uploaded to {repo}: {variable} is set; unset it")
    with _failures(repo, None):
        HfApi().whoami()


def upload_checkpoint(folder: Path, repo: str) -> Generator[Uploaded, None, str]:
    """Publish a folder that a conversion wrote, as events; return where it is then.

    The repo is made unless it exists. Its files appear together, with one commit at the end.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_upload(repo)
    listed = read_json(folder / MANIFEST).get("files")
    if not isinstance(listed, dict) or not listed:
        raise RequestError(f"{folder / MANIFEST} lists no files to upload; convert again")
    names = [*sorted(listed), MANIFEST]
    sizes = {name: (folder / name).stat().st_size for name in names}
    api, total, done = HfApi(), sum(sizes.values()), 0
    with _failures(repo, folder):
        url = str(api.create_repo(repo, exist_ok=True))
        _refuse_others(repo, set(api.list_repo_files(repo)) - {*names, *KEPT})
        with _without_bars():
            files = [CommitOperationAdd(name, folder / name) for name in names]
            for name, file in zip(names, files, strict=True):
                api.preupload_lfs_files(repo, [file])
                done += sizes[name]
                if done < total:
                    yield Uploaded(name, done, total)
            api.create_commit(repo, files, commit_message=f"Upload {folder.resolve().name}")
    yield Uploaded(names[-1], total, total)
    return url


def _refuse_others(repo: str, others: set[str]) -> None:
    """Refuse a repo in which files of something else would lie beside these."""
    if others:
        raise RequestError(
            f"{repo} holds {quote(min(others))}, which this checkpoint does not; name another "
            "repo, or remove it there"
        )


@contextmanager
def _failures(repo: str, folder: Path | None) -> Generator[None, None, None]:
    """Turn what the library raises into an error of one line."""
    try:
        yield
    except (RequestError, GeneratorExit):
        raise
    except Exception as error:  # each version of the library raises those of its own HTTP client
        first = error.__cause__ or error if isinstance(error, RuntimeError) else error
        status = getattr(getattr(first, "response", None), "status_code", None)
        reason = (str(first).strip() or type(first).__name__).splitlines()[0].rstrip(".")
        if status in (401, 403) or type(error).__name__ == "LocalTokenNotFoundError":
            reason = "a token that may write there is needed: run hf auth login, or set HF_TOKEN"
        elif status is not None:
            reason = f"the Hub answers with status {status}"
        again = f"; {folder} is complete: hf upload {repo} {folder}" if folder else ""
        raise DownloadError(f"nothing was uploaded to {repo}: {reason}{again}") from error


@contextmanager
def _without_bars() -> Generator[None, None, None]:
    """Keep the library from drawing bars of its own."""
    from huggingface_hub import utils

    bars: Any = utils
    were_disabled = bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            bars.enable_progress_bars()
