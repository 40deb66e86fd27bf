"""A hub on 127.0.0.1 that huggingface_hub really downloads from: dataset info, resolve with HEAD, GET and Range, a CDN.

Large files (`lfs`) redirect to a CDN under another host name, as on the real hub, so that a token must not follow them.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


def etags(content: bytes) -> tuple[str, str]:
    """Return the hub's ETag of this content as a small file (git blob sha1) and as a large one (sha256)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), hashlib.sha256(content).hexdigest()


@dataclass
class Repo:
    """Commits of one data set, and what its branches point to."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    lfs: tuple[str, ...] = ()
    gated: bool = False


@dataclass
class Hub:
    url: str = ""
    port: int = 0
    repos: dict[str, Repo] = field(default_factory=dict)
    missing_status: int = 404
    """What it answers for a repository that isn't there: 404, or 401 as the real hub does without a token."""
    unready: int = 0
    """Answer this status to everything, when not 0."""
    page: bytes | None = None
    """Answer this HTML to everything, as a proxy's login page does."""
    cut: dict[str, int] = field(default_factory=dict)
    """File name -> close the connection of its next GET after this many bytes."""
    stall: dict[str, int] = field(default_factory=dict)
    """File name -> hold its next GET open after this many bytes, and set `stalled`."""
    cdn_url: str = ""
    no_etag: bool = False
    no_range: bool = False
    """Answer a Range with the whole file, as some mirrors do."""
    spoil: bool = False
    """Send bytes that are not those announced."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range) of each request."""
    sent: list[tuple[str, str | None]] = field(default_factory=list)
    """(file name, Range) of each answer that carried a file's content."""
    encodings: set[str] = field(default_factory=set)
    """Accept-Encoding of each request that was sent a file's content."""
    tokens: set[tuple[str, str | None]] = field(default_factory=set)
    """(host asked, Authorization) of each request."""
    stalled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, files: dict[str, bytes], *, commit: str = "a", branch: str = "main", **options) -> str:
        """Add a commit (one hex digit, repeated) and point the branch to it; return the commit."""
        repo = self.repos.setdefault(name, Repo({}, {}))
        repo.commits[commit * 40] = files
        repo.branches[branch] = commit * 40
        for key, value in options.items():
            setattr(repo, key, value)
        return commit * 40

    def forget(self) -> None:
        self.requests.clear()
        self.sent.clear()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def log_message(self, *_args) -> None:
            """Keep the test's output clean."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            hub.requests.append((self.command, path, self.headers["Range"]))
            hub.tokens.add((self.headers["Host"].split(":")[0], self.headers["Authorization"]))
            if hub.unready:
                return self._send(hub.unready)
            if hub.page is not None:
                return self._send(200, hub.page, {"Content-Type": "text/html"})
            if path.startswith("/cdn/"):
                _, _, owner, name, commit, file = path.split("/", 5)
                return self._file(hub.repos[f"{owner}/{name}"].commits[commit][file], {})
            found = re.fullmatch(r"(?:/api)?/datasets/([\w.-]+/[\w.-]+?)(?:/(revision|resolve)/([\w.%-]+)(?:/(.+))?)?", path)
            repo = hub.repos.get(found[1]) if found else None
            if self.headers["Authorization"] == "Bearer wrong":
                return self._send(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
            if repo is None:
                words = "Invalid username or password." if hub.missing_status == 401 else "Repository not found"
                code = {} if hub.missing_status == 401 else {"X-Error-Code": "RepoNotFound"}
                return self._send(hub.missing_status, headers={**code, "X-Error-Message": words})
            commit = repo.branches.get(unquote(found[3] or "main"), found[3])
            if commit not in repo.commits:
                return self._send(404, headers={"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            if path.startswith("/api/"):
                names = [{"rfilename": name} for name in repo.commits[commit]]
                return self._send(200, json.dumps({"id": found[1], "sha": commit, "siblings": names}).encode())
            if repo.gated:
                return self._send(403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            content = repo.commits[commit][found[4]]
            git, sha256 = etags(content)
            headers = {"X-Repo-Commit": commit, "ETag": "" if hub.no_etag else f'"{git}"'}
            if found[4] not in repo.lfs:
                return self._file(content, headers)
            cdn = f"{hub.cdn_url}/cdn/{found[1]}/{commit}/{found[4]}?Signature=secret"
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content)), "Location": cdn}
            self._send(302, headers=headers | linked)

        def _send(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _file(self, content: bytes, headers: dict[str, str]) -> None:
            name = self.path.split("?")[0].rsplit("/", 1)[-1]
            if self.command == "GET":
                hub.sent.append((name, self.headers["Range"]))
                hub.encodings.add(self.headers["Accept-Encoding"])
                content = content[::-1] if hub.spoil else content
            start, status = 0, 200
            if self.headers["Range"] and not hub.no_range:
                start, status = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]), 206
                headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            body = content[start:]
            if self.command == "HEAD" or name not in {**hub.cut, **hub.stall}:
                return self._send(status, body, headers)
            stall = name in hub.stall
            limit = (hub.stall if stall else hub.cut).pop(name)
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[:limit])
            self.wfile.flush()
            if stall:
                hub.stalled.set()
                hub.over.wait(30)

    return Handler


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub in a thread for the length of a `with` block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    hub.url, hub.cdn_url = f"http://127.0.0.1:{hub.port}", f"http://localhost:{hub.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
