"""A small Hub on loopback, as far as huggingface_hub uses it: search, revisions, downloads, uploads, faults.

``python tests/hub_server.py FOLDER`` serves ``FOLDER/owner/name/...`` and prints its address, to try things:
``HF_ENDPOINT=http://127.0.0.1:PORT xlstm-unet models search``. It needs the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"
"""The token that may do everything."""
LARGE = (".safetensors", ".npz")
"""Files that are kept as large ones, named by SHA-256; others by git's SHA-1."""


@dataclass
class Repo:
    """A repository: its commits, newest last, and what they hold."""

    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    downloads: int = 0

    def commit(self, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(repr((len(self.commits), sorted(files))).encode() + b"".join(files.values()))
        self.commits.append((digest.hexdigest(), files))
        return digest.hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        revision = self.tags.get(revision, revision)
        return next((found for found in self.commits if found[0] == revision), None)


class HubServer:
    """The server, and what tests change about it.

    Attributes
    ----------
    repos
        Repositories by ``owner/name``.
    cut
        By file name: after how many bytes each of the next downloads of it breaks off.
    swapped
        By file name: bytes that are served in place of the right ones, under the right digest.
    stalled
        File names whose download stops half-way; it breaks off when they are taken out again.
    log
        Requests: method, path, Range.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.uploads: dict[str, bytes] = {}
        self.cut: dict[str, list[int]] = {}
        self.swapped: dict[str, bytes] = {}
        self.stalled: set[str] = set()
        self.slow_seconds = 0.0
        self.log: list[tuple[str, str, str | None]] = []
        self.closed = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="hub", daemon=True).start()

    def add(self, repo: str, folder: Path, **options: Any) -> str:
        """Commit the files of a folder to a repository; return the commit."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        found = self.repos.setdefault(repo, Repo(**options))
        return found.commit(files)

    def forget_everything(self) -> None:
        for state in (self.repos, self.uploads, self.cut, self.swapped, self.stalled, self.log):
            state.clear()
        self.slow_seconds = 0.0

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        place = urlsplit(self.path)
        path = unquote(place.path)
        self.hub.log.append((self.command, path, self.headers.get("Range")))
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunked()
        self.query = parse_qs(place.query)
        for pattern, handle in _ROUTES:
            if match := re.fullmatch(pattern, path):
                handle(self, *match.groups())
                return
        self._refuse(404, "RepoNotFound")

    def _chunked(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, code: int = 200) -> None:
        self._send(code, json.dumps(value).encode(), Content_Type="application/json")

    def _refuse(self, code: int, error: str) -> None:
        self._send(code, b'{"error": "refused"}', X_Error_Code=error, X_Error_Message=error)

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, name: str, *, content: bool = False) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or not repo.commits or (repo.private and not self._known()):
            self._refuse(404 if self._known() else 401, "RepoNotFound")
            return None
        if content and repo.gated and not self._known():
            self._refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            return None
        return repo

    def search(self) -> None:
        wanted, text = self.query.get("filter", []), self.query.get("search", [""])[0].lower()
        models = [
            self._fields(name, repo, *repo.commits[-1])
            for name, repo in self.hub.repos.items()
            if repo.commits and text in name.lower() and (not repo.private or self._known())
        ]
        models = [model for model in models if set(wanted) <= set(model["tags"])]
        models.sort(key=lambda model: -model["downloads"])
        self._json(models[: int(self.query.get("limit", ["1000"])[0])])

    def info(self, name: str, revision: str | None) -> None:
        if (repo := self._repo(name)) is None:
            return
        if (found := repo.at(revision or "main")) is None:
            self._refuse(404, "RevisionNotFound")
            return
        self._json(self._fields(name, repo, *found))

    def _fields(self, name: str, repo: Repo, commit: str, files: dict[str, bytes]) -> dict[str, Any]:
        card = files.get("README.md", b"").decode("utf-8", "replace")
        lines = dict(
            line.partition(": ")[::2] for line in card.split("---")[1:2] for line in line.splitlines()
        )
        tags = json.loads(lines["tags"]) if lines.get("tags", "").startswith("[") else []
        licence = lines.get("license", "").strip('"')
        siblings = []
        for path, content in files.items():
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": _git(content)}
            if path.endswith(LARGE):
                sibling["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {
            "_id": "0" * 24,
            "id": name,
            "modelId": name,
            "author": name.split("/")[0],
            "sha": commit,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": repo.downloads,
            "likes": 0,
            "tags": [*tags, *([f"license:{licence}"] if licence else [])],
            "cardData": {"license": licence} if licence else {},
            "siblings": siblings,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }

    def resolve(self, name: str, revision: str, path: str) -> None:
        if (repo := self._repo(name, content=True)) is None:
            return
        if (found := repo.at(revision)) is None:
            self._refuse(404, "RevisionNotFound")
            return
        commit, files = found
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        digest = _sha256(files[path]) if path.endswith(LARGE) else _git(files[path])
        content = self.hub.swapped.get(path, files[path])
        headers = {"ETag": f'"{digest}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if self.command == "HEAD":
            self._send(200, content, **headers)
            return
        repo.downloads += 1
        start = int(re.sub(r"\D", "", (self.headers.get("Range") or "0").split("-")[0]) or 0)
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send_content(path, content[start:], 206 if start else 200, headers)

    def _send_content(self, path: str, content: bytes, code: int, headers: dict[str, str]) -> None:
        """Promise everything; send it, or as much as the faults allow."""
        cuts = self.hub.cut.get(path, [])
        stop = cuts.pop(0) if cuts else len(content) // 2 if path in self.hub.stalled else len(content)
        self.send_response(code)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        step = 2**14 if self.hub.slow_seconds else 2**20
        for begin in range(0, stop, step):
            self.wfile.write(content[begin : min(begin + step, stop)])
            self.wfile.flush()
            time.sleep(self.hub.slow_seconds)
        if stop < len(content):
            while path in self.hub.stalled and not self.hub.closed.wait(0.02):
                pass
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def create(self) -> None:
        if not self._known():
            self._refuse(401, "InvalidToken")
            return
        fields = json.loads(self.body)
        name = f"{fields.get('organization') or 'me'}/{fields['name']}"
        if name in self.hub.repos:
            self._json({"error": "You already created this model repo"}, 409)
            return
        self.hub.repos[name] = Repo(
            private=fields.get("visibility") == "private" or bool(fields.get("private"))
        )
        self.hub.repos[name].commit({})
        self._json({"url": f"{self.hub.url}/{name}"})

    def check_card(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        files = self.hub.repos[name].commits[-1][1]
        answer = []
        for file in json.loads(self.body)["files"]:
            path, there = file["path"], files.get(file["path"])
            large = path.endswith(LARGE)
            oid = None if there is None else _sha256(there) if large else _git(there)
            mode = "lfs" if large else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer})

    def batch(self, name: str) -> None:
        if not self._known():
            self._refuse(401, "InvalidToken")
            return
        objects = [
            {**entry, "actions": {"upload": {"href": f"{self.hub.url}/upload/{entry['oid']}"}}}
            for entry in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if _sha256(self.body) != oid:
            self._refuse(400, "BadDigest")
            return
        self.hub.uploads[oid] = self.body
        self._send(200)

    def commit(self, name: str, revision: str) -> None:
        repo = self.hub.repos[name]
        if not self._known():
            self._refuse(403, "Forbidden")
            return
        head, before = repo.commits[-1]
        files = dict(before)
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header" and value.get("parentCommit", head) != head:
                self._refuse(412, "PreconditionFailed")
                return
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        commit = repo.commit(files)
        self._json(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"}
        )


_NAME = "([^/]+/[^/]+)"
_ROUTES = (
    ("/api/models", _Handler.search),
    (f"/api/models/{_NAME}(?:/revision/(.+))?", _Handler.info),
    (f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("/api/repos/create", _Handler.create),
    ("/api/validate-yaml", _Handler.check_card),
    (f"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("/upload/([0-9a-f]{64})", _Handler.upload),
    (f"/api/models/{_NAME}/commit/(.+)", _Handler.commit),
)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


if __name__ == "__main__":
    server = HubServer()
    for folder in sorted(Path(sys.argv[1]).glob("*/*/")):
        server.add(f"{folder.parent.name}/{folder.name}", folder)
    print(server.url, flush=True)
    threading.Event().wait()
