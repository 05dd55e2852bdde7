"""A small server that speaks the Hub's protocol, and misbehaves on demand."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c" * 40
LARGE = ".safetensors"  # stored like the Hub's large files: under their SHA-256


class Hub(ThreadingHTTPServer):
    """Serves a folder as the repository `owner/model`."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.status = 0  # answer every request with it
        self.status_of: dict[str, int] = {}  # answer requests of these files with it
        self.stumbles: dict[str, list[int]] = {}  # statuses that a file is answered with first
        self.cut: dict[str, int] = {}  # bytes of a file after which the connection ends, once
        self.ranges = True  # else all of a file is sent, whatever is requested
        self.wrong: set[str] = set()  # files whose hash is listed wrong
        self.token: str | None = None
        self.slow = 0.0  # seconds before each piece
        self.cut_off = threading.Event()  # a client went away before a file had ended
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, range
        self.sending, self.most_at_once = 0, 0  # files

        self.repos: dict[str, dict[str, bytes]] = {}  # made by clients: files by repo
        self.objects: dict[str, bytes] = {}  # large files that were uploaded, by SHA-256
        self.refused = 0  # the status that writing is answered with

    def handle_error(self, *_: Any) -> None:
        """Note that a client went away, which some tests want, and stay quiet."""
        self.cut_off.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def hash(self, name: str) -> str:
        """The name of a file's bytes: SHA-256 of large files, Git's own of small ones."""
        data = (self.folder / name).read_bytes()
        if name.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
        else:
            digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return "0" * len(digest) if name in self.wrong else digest

    def siblings(self) -> list[dict[str, Any]]:
        entries = []
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name, size = file.relative_to(self.folder).as_posix(), file.stat().st_size
            entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": "b" * 40}
            if name.endswith(LARGE):
                entry["lfs"] = {"size": size, "sha256": self.hash(name), "pointerSize": 130}
            else:
                entry["blobId"] = self.hash(name)
            entries.append(entry)
        return entries


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms between its header and its body

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.objects[oid] = data
        self._send(200, b"{}", {"ETag": oid}, body=True)

    def do_POST(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        data = self.rfile.read(int(self.headers["Content-Length"]))
        hub.requests.append((self.command, path, None))
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._error(401, "RepoNotFound")
        elif hub.refused:
            self._error(hub.refused, "Trouble")
        else:
            self._json(self._written(path, data))

    def _written(self, path: str, data: bytes) -> dict[str, Any]:
        """Answer a request that writes: the repo, what is large, large files, and the commit."""
        hub = self.server
        if path.endswith("/commit/main"):
            return self._commit(path.split("/models/")[1].removesuffix("/commit/main"), data)
        content = json.loads(data)
        if path == "/api/repos/create":
            repo = f"{content['organization']}/{content['name']}"
            hub.repos.setdefault(repo, {".gitattributes": b""})
            return {"url": f"{hub.url}/{repo}"}
        if path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in content["files"]
            ]
            return {"files": files}
        if path.endswith("/objects/batch"):
            objects = []
            for item in content["objects"]:
                upload = {"upload": {"href": f"{hub.url}/objects/{item['oid']}"}}
                known = item["oid"] in hub.objects
                objects.append({**item, **({} if known else {"actions": upload})})
            return {"transfer": "basic", "objects": objects}
        assert path == "/api/validate-yaml", path
        return {"errors": [], "warnings": []}

    def _commit(self, repo: str, data: bytes) -> dict[str, Any]:
        for line in data.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.server.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.server.repos[repo][value["path"]] = self.server.objects[value["oid"]]
        url = f"{self.server.url}/{repo}/commit/{COMMIT}"
        return {"success": True, "commitOid": COMMIT, "commitUrl": url}

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, True)

    def _answer(self, body: bool) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.status:
            self._error(hub.status, "Trouble")
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._error(401, "RepoNotFound")
        elif path == "/api/whoami-v2":
            self._json({"type": "user", "name": "owner", "auth": {}})
        elif path.startswith("/api/models/") and path.endswith("/tree/main"):
            files = hub.repos[path.split("/models/")[1].removesuffix("/tree/main")]
            entry = {"type": "file", "oid": "b" * 40}
            self._json([{**entry, "path": n, "size": len(d)} for n, d in files.items()])
        elif path.startswith("/api/models/owner/model"):
            self._contents(path.partition("/revision/")[2] or "main", body)
        elif not path.startswith("/owner/model/resolve/"):
            self._error(404, "RepoNotFound")
        elif not (hub.folder / path.split("/", 5)[5]).is_file():
            self._error(404, "EntryNotFound")
        elif status := hub.status_of.get(path.split("/", 5)[5]):
            self._error(status, "Trouble")
        elif body and hub.stumbles.get(path.split("/", 5)[5]):
            self._error(hub.stumbles[path.split("/", 5)[5]].pop(0), "Trouble")
        else:
            self._file(path.split("/", 5)[5], body)

    def _contents(self, revision: str, body: bool) -> None:
        if revision not in ("main", "v1", COMMIT):
            self._error(404, "RevisionNotFound")
            return
        content = {
            "id": "owner/model",
            "sha": COMMIT,
            "siblings": self.server.siblings(),
            "tags": ["mlx", "license:apache-2.0"],
        }
        self._send(200, json.dumps(content).encode(), {}, body)

    def _file(self, name: str, body: bool) -> None:
        data, status = (self.server.folder / name).read_bytes(), 200
        headers = {"ETag": f'"{self.server.hash(name)}"', "X-Repo-Commit": COMMIT}
        headers |= {"X-Linked-Size": str(len(data))}
        if self.server.ranges and (span := self.headers.get("Range")):
            start = int(span.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self.server.sending += body
        self.server.most_at_once = max(self.server.most_at_once, self.server.sending)
        try:
            self._send(
                status, data, headers, body, self.server.cut.pop(name, None) if body else None
            )
        finally:
            self.server.sending -= body

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body=True)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], body: bool, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        for start in range(0, len(data) if cut is None else cut, 1 << 16):
            time.sleep(self.server.slow)
            self.wfile.write(data[start : min(start + (1 << 16), cut or len(data))])
        if cut is not None:
            self.close_connection = True
            self.connection.close()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """Serve `folder` while the context lasts."""
    hub = Hub(folder)
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
