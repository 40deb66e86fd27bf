"""A reverse proxy that makes a share of requests fail: an error, a connection cut off, no answer, a slow one; before or after they were served.

with FaultProxy("http://127.0.0.1:10000", share=0.05, seed=1) as proxy:
    proxy.url, proxy.faults      # Counter({'reset': 3, ...})
"""

import http.client
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

FAULTS = ("error", "reset", "silence", "slow")
SILENCE_S, SLOW_S = 2.0, 0.5
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class FaultProxy:
    def __init__(self, upstream: str, *, share: float, seed: int = 0) -> None:
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.body_bytes = 0
        """Of all answers that were passed on whole."""
        self._upstream, self._share, self._draw, self._lock = urlsplit(upstream), share, random.Random(seed), threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self) -> tuple[str | None, bool]:
        """Return the fault of the next request, and whether it is served before."""
        with self._lock:
            self.requests += 1
            name = self._draw.choice(FAULTS) if self._draw.random() < self._share else None
            if name:
                self.faults[name] += 1
            return name, self._draw.random() < 0.5

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self._upstream.hostname, self._upstream.port, timeout=60)
        try:
            upstream.request(method, path, body, headers)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self._body()
            fault, served = proxy.fault()
            answer = proxy.forward(self.command, self.path, dict(self.headers), body) if served or fault in (None, "slow") else None
            if fault == "slow":
                time.sleep(SLOW_S)
            if fault == "silence":
                time.sleep(SILENCE_S)
            if fault in ("reset", "silence"):
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if fault == "error":
                answer = 500, [], b""
            assert answer
            self._send(*answer)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            length = str(len(body))
            for name, value in headers:
                if self.command == "HEAD" and name.lower() == "content-length":
                    length = value
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                proxy.body_bytes += len(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, ValueError, OSError):  # a client that was killed meanwhile
                self.close_connection = True

    return Handler
