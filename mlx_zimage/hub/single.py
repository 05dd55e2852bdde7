"""Single files of a Hub repo, such as a LoRA: found in the cache, or fetched."""

import os
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..errors import DownloadError
from ..events import Downloaded
from .download import Remote, failure, list_files, transfer
from .locate import REPO, offline, quote
from .published import File

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""The files of a PEFT adapter, which is a folder."""
SOURCE = re.compile(r"(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<name>.+))?")
SHOWN = 4  # files that a message lists


@dataclass(frozen=True)
class HubFile:
    """A file of a repo: "owner/repo/file", or "owner/repo" for the only one that it has.

    A revision stands after the repo: "owner/repo@v1/file".
    """

    repo: str
    revision: str | None
    name: str | None

    @classmethod
    def parse(cls, source: str) -> "HubFile | None":
        """Return what a source names on the Hub, or None where it can only be a path."""
        match = SOURCE.fullmatch(source)
        if match is None or not REPO.fullmatch(match["repo"]) or ".." in source:
            return None
        if match["name"] is None and match["repo"].endswith(".safetensors"):
            return None
        return cls(match["repo"], match["revision"], match["name"])

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return quote(f"{self.repo}{at}" + (f"/{self.name}" if self.name else ""))

    def cached(self) -> Path | None:
        """Return its path in the Hub's cache, or None where it is not there."""
        from huggingface_hub import constants, try_to_load_from_cache

        config = f"{self.name}/{ADAPTER[0]}" if self.name else ADAPTER[0]
        for name in (self.name, config):
            if name is not None and name.endswith((".safetensors", ".json")):
                path = try_to_load_from_cache(self.repo, name, revision=self.revision)
                if isinstance(path, str) and name is not config:
                    return Path(path)
                if isinstance(path, str) and Path(path).with_name(ADAPTER[1]).is_file():
                    return Path(path).parent  # else its download was interrupted
        if self.name is not None:
            return None
        folder = Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}"
        reference = folder / "refs" / (self.revision or "main")
        commit = reference.read_text().strip() if reference.is_file() else self.revision or ""
        files = sorted((folder / "snapshots" / commit).glob("**/*.safetensors")) if commit else []
        if len(files) != 1:
            return None
        return files[0].parent if files[0].with_name(ADAPTER[0]).exists() else files[0]

    def fetching(self) -> Generator[Downloaded, None, Path]:
        """Fetch it, and return its path."""
        if variable := offline():
            raise DownloadError(f"{self} cannot be downloaded: {variable} is set; unset it")
        try:
            published = list_files(self.repo, self.revision)
        except Exception as error:  # each version of the library raises its HTTP client's own
            raise failure(self.repo, self.revision, error, "try again later") from error
        chosen = self._chosen(published.files)
        yield from transfer(Remote(self.repo, self.revision, published.revision or "", chosen))
        names = (*os.path.split(chosen[-1].name),)
        path = HubFile(self.repo, self.revision, "/".join(filter(None, names))).cached()
        assert path is not None
        return path if len(chosen) == 1 else path.parent

    def _chosen(self, files: Sequence[File]) -> tuple[File, ...]:
        """Return the file to fetch, or the two of a PEFT adapter."""
        by_name = {file.name: file for file in files}
        folder, _, name = (self.name or "").rpartition("/")
        config = f"{folder}/{ADAPTER[0]}" if folder else ADAPTER[0]
        if name == ADAPTER[1] and self.name in by_name and config in by_name:
            return by_name[config], by_name[self.name]  # the config has the scale
        if self.name in by_name:
            return (by_name[self.name],)
        prefix = f"{self.name}/" if self.name else ""
        if all(f"{prefix}{name}" in by_name for name in ADAPTER):
            return tuple(by_name[f"{prefix}{name}"] for name in ADAPTER)
        weights = [name for name in by_name if name.endswith(".safetensors")]
        if self.name is None and len(weights) == 1:
            return (by_name[weights[0]],)
        listed = ", ".join(map(quote, weights[:SHOWN])) or "none"
        if len(weights) > SHOWN:
            listed += f" and {len(weights) - SHOWN} more"
        if self.name is None:
            raise DownloadError(
                f"{self.repo} must hold one .safetensors file, or be named with one: it has "
                f"{listed}; write {self.repo}/FILE"
            )
        near = get_close_matches(self.name, weights, 1)
        advice = f"did you mean {quote(near[0])}?" if near else f"it has {listed}"
        raise DownloadError(f"{self.repo} has no file {quote(self.name)}; {advice}")
