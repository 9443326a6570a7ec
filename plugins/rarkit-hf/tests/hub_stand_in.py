"""A server that answers as the Hugging Face hub does about one data set, ``owner/name``, whose files lie in a local folder."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves a folder, and keeps what was asked of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.requests = folder, list[str]()

    def entries(self, file: Path) -> Iterator[dict[str, object]]:
        path = str(file.relative_to(self.folder))
        if file.is_dir():
            yield {"type": "directory", "path": path, "oid": COMMIT, "size": 0}
        elif file.is_file():
            yield {"type": "file", "path": path, "oid": oid(file), "size": file.stat().st_size}


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.requests.append(f"POST {self.path}")
        self._json([entry for path in form.get("paths", []) for entry in self.server.entries(self.server.folder / path)])

    def do_GET(self) -> None:
        folder = self.server.folder
        self.server.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        path = unquote(urlsplit(self.path).path)
        if resolved := re.fullmatch(r"/datasets/owner/name/resolve/([^/]+)/(.*)", path):
            self._file(folder / resolved[2])
        elif re.fullmatch(r"/api/datasets/owner/name(/revision/[^/]+)?", path):
            siblings = [{"rfilename": str(file.relative_to(folder))} for file in sorted(folder.rglob("*")) if file.is_file()]
            self._json({"id": "owner/name", "sha": COMMIT, "siblings": siblings, "private": False, "gated": False, "tags": []})
        elif tree := re.fullmatch(r"/api/datasets/owner/name/tree/[^/]+/?(.*)", path):
            below = folder / tree[1]
            found = below.rglob("*") if "recursive=true" in self.path.lower() else below.glob("*")
            self._json([entry for file in sorted(found) for entry in self.server.entries(file)])
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        data, headers = file.read_bytes(), {"ETag": f'"{oid(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(part[1]), min(int(part[2] or len(data)), len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self._answer(206, data[start:stop], headers)
        else:
            self._answer(200, data, headers)

    def _json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of a folder, and the requests that it got."""
    server = Hub(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.requests
    finally:
        server.shutdown()
        server.server_close()
