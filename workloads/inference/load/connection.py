"""One non-blocking connection to the target, plain or TLS, and the request that is on it."""

import errno
import os
import resource
import socket
import ssl
from functools import partial
from typing import Any

READ_BYTES = 16384
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def allow_many() -> None:
    """Raise this process's limit of open files to what it may be: each connection is one, and shells give 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Exchange:
    """One request and what came back on it: `log` is stamp, bytes, stamp, bytes, ..."""

    __slots__ = ("closed", "detail", "failure", "index", "log", "scheduled_ns", "sent_ns")

    def __init__(self, index: int, scheduled_ns: int, sent_ns: int) -> None:
        self.index, self.scheduled_ns, self.sent_ns = index, scheduled_ns, sent_ns
        self.log: list[Any] = []
        self.failure: str | None = None
        self.detail = ""
        self.closed = False
        """The connection ended, so what is there is all that will be."""


class Connection:
    """`recv(n)` returns what is there, b"" at the end, or raises one of WOULD_BLOCK or OSError."""

    __slots__ = ("exchange", "fd", "idle_since_ns", "keeps", "ready", "recv", "sock", "tls", "unsent", "used")

    def __init__(self, address: tuple[Any, ...], family: int, context: ssl.SSLContext | None, hostname: str) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            error = sock.connect_ex(address)
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
            self.tls = context is not None
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=hostname, do_handshake_on_connect=False)
        except BaseException:
            sock.close()
            raise
        self.sock, self.fd = sock, sock.fileno()
        self.recv = partial(_recv_tls, sock) if isinstance(sock, ssl.SSLSocket) else sock.recv
        self.ready = False
        """Connected, and for TLS shaken hands."""
        self.exchange: Exchange | None = None
        self.keeps = True
        self.unsent = b""
        self.idle_since_ns = 0
        self.used = False

    def go_on(self) -> bool:
        """Go on with connecting; return whether it is done. Raises OSError when it failed."""
        if not self.ready:
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            try:
                if isinstance(self.sock, ssl.SSLSocket):
                    self.sock.do_handshake()
                self.ready = True
            except WOULD_BLOCK:
                return False
        return True

    def send(self, data: bytes) -> bool:
        """Send as much as goes now; return whether that was all of it."""
        try:
            sent = self.sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        self.unsent = data[sent:] if sent < len(data) else b""
        return not self.unsent


def _recv_tls(sock: ssl.SSLSocket, size: int) -> bytes:
    """Read all records that are there: what OpenSSL holds already, epoll doesn't know of."""
    data = sock.recv(size)
    try:
        while data and sock.pending():
            data += sock.recv(size)
    except ssl.SSLWantReadError:
        pass
    return data
