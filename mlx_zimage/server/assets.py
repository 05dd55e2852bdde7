"""The files of the page, kept in memory and compressed: many small ones open as fast as one."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class Asset:
    """One file as it was read."""

    data: bytes
    packed: bytes
    tag: str
    changed: int  # the file's time, in ns

    @classmethod
    def read(cls, path: Path) -> "Asset":
        data = path.read_bytes()
        tag = f'W/"{hashlib.sha256(data).hexdigest()[:16]}"'
        return cls(data, gzip.compress(data, mtime=0), tag, path.stat().st_mtime_ns)


class Assets:
    """The files of a folder, by names that are listed once: no path of a request is followed."""

    def __init__(self, folder: Path):
        files = [path for path in folder.rglob("*") if path.suffix in TYPES and path.is_file()]
        self._paths = {path.relative_to(folder).as_posix(): path for path in files}
        self._kept: dict[str, Asset] = {}

    def answer(self, name: str, request: Request) -> Response:
        """Return a file, or that the browser's copy is still good; it asks each time."""
        asset = self._asset(name)
        headers = {"Cache-Control": "no-cache", "ETag": asset.tag, "Vary": "Accept-Encoding"}
        if asset.tag in request.headers.get("if-none-match", "").split(", "):
            return Response(status_code=304, headers=headers)
        data = asset.data
        if "gzip" in request.headers.get("accept-encoding", ""):
            data = asset.packed
            headers["Content-Encoding"] = "gzip"
        return Response(data, headers=headers, media_type=TYPES[self._paths[name].suffix])

    def _asset(self, name: str) -> Asset:
        path = self._paths.get(name)
        if path is None:
            raise HTTPException(404)
        asset = self._kept.get(name)
        if asset is None or asset.changed != path.stat().st_mtime_ns:
            asset = self._kept[name] = Asset.read(path)
        return asset
