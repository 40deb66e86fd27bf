"""The connections to one target: opened ahead, reused last in first out, replaced before the server would close them."""

import select
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from workloads.inference.load.connection import Connection
from workloads.inference.load.plan import Target

IDLE_NS = 3_000_000_000
"""A used connection idle for longer is replaced: uvicorn closes them after 5 s, which would race with a request."""
IN, OUT = select.EPOLLIN, select.EPOLLOUT


class Pool:
    """Registers its connections with the epoll that the client waits on; `by_fd` finds them again."""

    def __init__(self, target: Target, epoll: select.epoll) -> None:
        self._target, self._epoll = target, epoll
        self._context = ssl.create_default_context() if target.tls else None
        self._family = socket.AF_INET
        self._address: tuple[Any, ...] = ()
        self._unresolved: OSError | None = None
        try:
            found = socket.getaddrinfo(*target.address, type=socket.SOCK_STREAM)
            # Servers of models listen on IPv4 unless told otherwise, and localhost may name IPv6 first.
            self._family, _, _, _, self._address = min(found, key=lambda info: info[0] != socket.AF_INET)
        except OSError as error:
            self._unresolved = error
        self.by_fd: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self.opened = 0

    def connect_ahead(self, count: int, limit_s: float = 10.0) -> None:
        """Open up to `count` connections and wait for them. Where that fails, the requests find out themselves."""
        with suppress(OSError):
            for _ in range(count):
                self.open()
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s and not all(c.ready for c in self.by_fd.values()):
            for fd, _ in self._epoll.poll(0.1):
                if (connection := self.by_fd.get(fd)) is not None:
                    try:
                        self.go_on(connection)
                    except OSError:
                        self.drop(connection)

    def open(self) -> Connection:
        if self._unresolved is not None:
            raise self._unresolved
        connection = Connection(self._address, self._family, self._context, self._target.address[0])
        self.opened += 1
        self.by_fd[connection.fd] = connection
        self._epoll.register(connection.fd, IN | OUT)
        return connection

    def go_on(self, connection: Connection) -> bool:
        """Go on with connecting; return whether the connection is ready. An idle one is then free for use."""
        if not connection.ready and connection.go_on():
            self._epoll.modify(connection.fd, IN)
            if connection.exchange is None:
                self._idle.append(connection)
        return connection.ready

    def take(self) -> Connection:
        """Return an idle connection, or a new one that is still connecting: a send never waits for another request's end."""
        return self._idle.pop() if self._idle else self.open()

    def release(self, connection: Connection, now_ns: int) -> None:
        connection.exchange = None
        connection.used, connection.idle_since_ns = True, now_ns
        self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        del self.by_fd[connection.fd]
        with suppress(ValueError):
            self._idle.remove(connection)
        connection.sock.close()

    def renew(self, now_ns: int) -> None:
        """Replace connections that have been idle for long."""
        for connection in [c for c in self._idle if c.used and now_ns - c.idle_since_ns > IDLE_NS]:
            self.drop(connection)
            with suppress(OSError):
                self.open()

    def wait_to_write(self, connection: Connection, waits: bool) -> None:
        self._epoll.modify(connection.fd, IN | OUT if waits else IN)

    def close(self) -> None:
        for connection in list(self.by_fd.values()):
            self.drop(connection)
