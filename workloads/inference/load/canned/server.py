"""The canned server's loop: one epoll, one thread; every send is stamped with perf_counter_ns right before it."""

import heapq
import json
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from workloads.inference.load.canned import reply
from workloads.inference.load.canned.answers import Answers, Config, Served
from workloads.inference.load.timer import Timer

SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>; Python has no name for it


def _arrived_ns(extra: list[tuple[int, int, bytes]]) -> int:
    """Return when the kernel got the bytes, on the clock of perf_counter_ns: many requests may wait until they are read."""
    now = time.perf_counter_ns()
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) >= 16:
            stamp: tuple[int, int] = struct.unpack("qq", data[:16])
            seconds, nanoseconds = stamp
            return now - max(0, time.time_ns() - seconds * 1_000_000_000 - nanoseconds)
    return now


@dataclass(eq=False)
class Connection:
    sock: socket.socket
    received: bytes = b""
    unsent: bytes = b""
    script: reply.Script | None = None
    position: int = 0
    received_ns: int = 0
    send_ns: list[int] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


class Server:
    """Listens once made; `serve` runs until the process is told to end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._listener = socket.create_server((config.host, config.port), backlog=4096)
        self._listener.setblocking(False)
        self.url = f"http://{config.host}:{self._listener.getsockname()[1]}"
        self._timer, self._epoll = Timer(), select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int, Connection]] = []
        self._eager: dict[Connection, None] = {}
        self._sharing: deque[Connection] = deque()
        self._turn_ns = 0
        self._accepted = self._output_tokens = 0
        self._answers = Answers(config, self._served)
        self._stall_ns: int | None = None

    def serve(self) -> None:
        while True:
            for fd, mask in self._epoll.poll(0 if self._eager else -1):
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._timer.fd:
                    self._timer.clear()
                elif (connection := self._connections.get(fd)) is not None:
                    self._ready(connection, mask)
            now = time.perf_counter_ns()
            if self._stall_ns is not None and now >= self._stall_ns:
                self._stall_ns = None
                time.sleep(self.config.stall_s)
                continue
            while self._due and self._due[0][0] <= now:
                self._advance(heapq.heappop(self._due)[2])
            for connection in list(self._eager):
                self._advance(connection)
            self._share(now)
            marks = ([self._due[0][0]] if self._due else []) + ([self._stall_ns] if self._stall_ns else [])
            marks += [self._turn_ns] if self._sharing else []
            if marks:
                self._timer.set(min(marks))

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                self._accepted += 1
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                self._connections[sock.fileno()] = Connection(sock)
                self._epoll.register(sock, select.EPOLLIN)

    def _ready(self, connection: Connection, mask: int) -> None:
        if mask & select.EPOLLOUT and connection.unsent:
            self._flush(connection)
        if not mask & ~select.EPOLLOUT:
            return
        try:
            data, extra, _, _ = connection.sock.recvmsg(1 << 20, 64)
        except BlockingIOError:
            return
        except OSError:
            data, extra = b"", []
        now = _arrived_ns(extra)
        if not data:
            self._close(connection)
            return
        connection.received += data
        head, blank, rest = connection.received.partition(b"\r\n\r\n")
        if not blank:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        connection.received, connection.received_ns = rest[length:], now
        self._request(connection, lines[0].split(), headers, rest[:length])

    def _request(self, connection: Connection, line: list[str], headers: dict[str, str], body: bytes) -> None:
        answer = self._answers.to(line, headers, body)
        if answer.ordinal == 0 and self.config.stall_at_s is not None:
            self._stall_ns = connection.received_ns + round(self.config.stall_at_s * 1e9)
        if answer.about is None:
            self._send(connection, answer.data)
            return
        connection.about, connection.send_ns, connection.position, connection.script = answer.about, [], 0, answer.script
        self._output_tokens += answer.tokens
        if answer.script is not None:
            if answer.script.early:
                self._send(connection, answer.script.early)
            self._schedule(connection)
            return
        if answer.data:
            connection.send_ns.append(time.perf_counter_ns())
            self._send(connection, answer.data)
        self._log(connection)
        if answer.closes:
            self._close(connection)

    def _served(self) -> Served:
        running = sum(one.script is not None for one in self._connections.values())
        return Served(self._accepted, self._output_tokens, running)

    def _schedule(self, connection: Connection) -> None:
        config = self.config
        if config.capacity_tps is not None:
            if not self._sharing and connection.position == 0:  # idle until now: what it could have sent meanwhile is lost
                self._turn_ns = max(self._turn_ns, connection.received_ns)
            self._sharing.append(connection)
            return
        if not config.ttft_ms and not config.itl_ms:
            self._eager[connection] = None
            return
        due = connection.received_ns + round((config.ttft_ms + config.itl_ms * connection.position) * 1e6)
        heapq.heappush(self._due, (due, connection.sock.fileno(), connection))

    def _share(self, now: int) -> None:
        """Give the streams their turns that are due: each token takes 1 / capacity, whoever's it is."""
        while self._sharing and self._turn_ns <= now:
            connection = self._sharing.popleft()
            if connection.script is not None and not connection.unsent:
                self._turn_ns += round(connection.script.tokens[connection.position] * 1e9 / (self.config.capacity_tps or 1))
            self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Send a stream's next piece."""
        script, at = connection.script, connection.position
        if script is None or connection.sock.fileno() < 0:
            return
        if connection.unsent:  # the client doesn't read; go on when it does
            self._eager.pop(connection, None)
            return
        connection.send_ns.append(time.perf_counter_ns())
        connection.position = at + 1
        self._output_tokens += script.tokens[at]
        self._send(connection, script.sends[at])
        if connection.sock.fileno() < 0:
            return
        if at + 1 < len(script.sends):
            if connection not in self._eager:
                self._schedule(connection)
            return
        self._eager.pop(connection, None)
        self._log(connection, script.tokens)
        connection.script = None
        if script.closes:
            self._close(connection)

    def _send(self, connection: Connection, data: bytes) -> None:
        if connection.unsent:
            connection.unsent += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self._epoll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: Connection) -> None:
        data, connection.unsent = connection.unsent, b""
        self._epoll.modify(connection.sock, select.EPOLLIN)
        self._send(connection, data)
        if not connection.unsent and connection.script is not None and connection not in self._eager:
            self._schedule(connection)

    def _log(self, connection: Connection, tokens: Sequence[int] | None = None) -> None:
        if self.config.log is not None:
            stamps = {"received_ns": connection.received_ns, "send_ns": connection.send_ns, "tokens": tokens or []}
            self.config.log.write(json.dumps(connection.about | stamps) + "\n")
            self.config.log.flush()

    def _close(self, connection: Connection) -> None:
        self._eager.pop(connection, None)
        self._connections.pop(connection.sock.fileno(), None)
        connection.script = None
        connection.sock.close()
