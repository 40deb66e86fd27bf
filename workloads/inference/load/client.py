"""The client: one epoll loop that sends when due and stamps what arrives. Nothing is parsed while it runs but a response's head.

Why it is ours: an asyncio client spends its CPU on tasks, buffers and JSON, and then reports its own delays as the server's.
Here a read costs one epoll entry, one recv and two list appends. docs/load.md has the figures.

    Client(target, requests, due_ns=None, concurrency=8).run(time.perf_counter_ns())    # in this process; run.py uses several
"""

import gc
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from errno import ECONNREFUSED, ECONNRESET
from typing import Any

from workloads.inference.load import failures
from workloads.inference.load.connection import READ_BYTES, WOULD_BLOCK, Connection, Exchange
from workloads.inference.load.plan import Request, Target
from workloads.inference.load.pool import IN, OUT, Pool
from workloads.inference.load.response import Head, ends_chunked
from workloads.inference.load.timer import Timer

HUNG_AFTER = 8
"""So many requests that timed out with nothing of an answer, and from the first one's send on nothing came for any other either: the
server hangs. Fewer where fewer are in flight at once, but never one alone, unless there is no other."""
TICK_NS = 50_000_000
"""How often time-outs and idle connections are looked at."""
EVENT_END = b"\n\n\r\n"
"""A chunk that ends with an event ends so; the last chunk of a response doesn't."""


class Client:
    """Drives one process's share of a load. `due_ns`: offsets from the start, or None for a closed loop of `concurrency`."""

    def __init__(self, target: Target, requests: Sequence[Request], due_ns: Sequence[int] | None, concurrency: int,
                 on_tick: Callable[[int], None] | None = None) -> None:  # fmt: skip
        self._timeout_ns = round(target.timeout_s * 1e9)
        self._waiting = deque(requests)
        self._closed_loop = due_ns is None
        self._offsets_ns = [0] * min(concurrency, len(requests)) if due_ns is None else due_ns
        self._on_tick = on_tick
        self._epoll, self._timer = select.epoll(), Timer()
        self._epoll.register(self._timer.fd, IN)
        self.pool = Pool(target, self._epoll)
        self._total, self.done = len(requests), 0
        self._hung_after = min(HUNG_AFTER, max(2, concurrency), len(requests))
        self._silent_ns: list[int] = []
        """When those were sent that timed out and after which no other has ended."""
        self._sign_ns, self.hung = 0, False
        self.exchanges: list[Exchange] = []
        self.began_cpu_s = 0.0
        """Of time.process_time, once all that comes before the start is done."""
        self._streams: dict[int, tuple[Callable[[int], bytes], Callable[[Any], None]]] = {}

    def run(self, start_ns: int) -> list[Exchange]:
        """Send everything, from start_ns on the clock of perf_counter_ns; return when the last request has ended."""
        self._due_ns = deque(start_ns + offset for offset in self._offsets_ns)
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection would be a pause that looks like the server's
        self.began_cpu_s = time.process_time()
        try:
            self._loop(start_ns)
        finally:
            gc.enable()
            gc.unfreeze()
        return self.exchanges

    def close(self) -> None:
        self.pool.close()
        self._timer.close()
        self._epoll.close()

    def _loop(self, tick_ns: int) -> None:
        """The hot path is the first branch: a stream whose head is known. `streams` holds what it needs, and nothing else does."""
        poll, clock, streams, due_ns = self._epoll.poll, time.perf_counter_ns, self._streams, self._due_ns
        while self.done < self._total:
            self._timer.set(min(due_ns[0], tick_ns) if due_ns else tick_ns)
            for fd, mask in poll():
                stream = streams.get(fd)
                if stream is not None and mask == IN:
                    recv, append = stream
                    try:
                        data = recv(READ_BYTES)
                        append(clock())
                        append(data)
                        # Most reads are whole events; the last one, none and a torn one are not.
                        if data[-4:] != EVENT_END:
                            self._look(self.pool.by_fd[fd])
                    except WOULD_BLOCK:
                        pass
                    except OSError as error:
                        self._lost(self.pool.by_fd[fd], error)
                else:
                    self._other(fd, mask)
                # Here too, since a round over many streams takes a while.
                if due_ns and due_ns[0] <= clock():
                    self._send_due()
            now = clock()
            if due_ns and due_ns[0] <= now:
                self._send_due()
            if now >= tick_ns:
                self._tick(now)
                tick_ns = now + TICK_NS

    def _receive(self, connection: Connection) -> None:
        """Stamp and keep what has arrived on a connection whose response has only begun, or that should be idle."""
        try:
            data = connection.recv(READ_BYTES)
        except WOULD_BLOCK:
            return
        except OSError as error:
            self._lost(connection, error)
            return
        now = time.perf_counter_ns()
        if connection.exchange is None:
            self._lost(connection, None)
            return
        connection.exchange.log += (now, data)
        self._look(connection)

    def _look(self, connection: Connection) -> None:
        """See whether the response is complete; read its head once."""
        exchange = connection.exchange
        assert exchange
        now, data = exchange.log[-2:]
        if not data:
            del exchange.log[-2:]
            self._lost(connection, None)
            return
        if connection.fd not in self._streams:
            data = b"".join(exchange.log[1::2])
            head = Head.of(data)
            if head is None:
                return
            connection.keeps = head.keeps
            if head.length is not None:
                if len(data) >= head.size + head.length:
                    self._end(connection, now)
                return
            if not head.chunked:
                return  # ends when the server closes
            self._streams[connection.fd] = (connection.recv, exchange.log.append)
        try:
            ended = ends_chunked(data, exchange.log)
        except ValueError:  # what is wrong with it is said when it is read; what comes next on the connection nobody knows
            ended, connection.keeps = True, False
        if ended:
            self._end(connection, now)

    def _end(self, connection: Connection, now: int) -> None:
        """A response is complete: the connection is free, and in a closed loop the next request is due."""
        if connection.keeps and not connection.unsent:
            self._streams.pop(connection.fd, None)
            self.pool.release(connection, now)
        else:
            self._drop(connection)
        self._count(now)

    def _drop(self, connection: Connection) -> None:
        self._streams.pop(connection.fd, None)
        connection.exchange = None
        self.pool.drop(connection)

    def _count(self, now: int, sign: bool = True) -> None:
        self.done += 1
        if sign:
            self._sign_ns = now
        if self._closed_loop and self._waiting and len(self.exchanges) + len(self._due_ns) < self._total:
            self._due_ns.append(now)

    def _lost(self, connection: Connection, error: OSError | None) -> None:
        """The connection ended. What its request has so far says later how bad that is."""
        exchange, connecting = connection.exchange, not connection.ready
        self._drop(connection)
        if exchange is not None:
            # Reset while we connect: the kernel had taken the connection for a server that died before it accepted it.
            if connecting and error is not None and (connection.tls or error.errno != ECONNRESET):
                self._unconnected(exchange, error)
            exchange.closed = True
            self._count(time.perf_counter_ns())

    def _unconnected(self, exchange: Exchange, error: OSError) -> None:
        exchange.failure = failures.CONNECT_REFUSED if error.errno == ECONNREFUSED else failures.CONNECT_FAILED
        exchange.detail = error.strerror or str(error)

    def _send_due(self) -> None:
        """Send every request that is due, on an idle connection or a new one; late ones too, with the time it really was."""
        clock, due_ns = time.perf_counter_ns, self._due_ns
        while due_ns and due_ns[0] <= (now := clock()):
            request = self._waiting.popleft()
            exchange = Exchange(request.index, due_ns.popleft(), now)
            self.exchanges.append(exchange)
            try:
                connection = self.pool.take()
            except OSError as error:
                self._unconnected(exchange, error)
                self._count(now)
                continue
            connection.exchange, connection.unsent = exchange, request.data
            if connection.ready:
                exchange.sent_ns = clock()
                self._write(connection)

    def _write(self, connection: Connection) -> None:
        try:
            complete = connection.send(connection.unsent)
        except OSError as error:
            self._lost(connection, error)
            return
        if not complete:
            self.pool.wait_to_write(connection, True)

    def _other(self, fd: int, mask: int) -> None:
        """The timer, or a connection that is still connecting, waits for its response's head, has more to send, or broke."""
        connection = self.pool.by_fd.get(fd)
        if connection is None:
            self._timer.clear()
            return
        if not connection.ready:
            try:
                # Without OUT the event is an earlier connection's, which had this number in the same round.
                if mask == IN or not self.pool.go_on(connection):
                    return
            except OSError as error:
                self._lost(connection, error)
                return
        if connection.unsent and mask & OUT:
            self.pool.wait_to_write(connection, False)
            self._write(connection)
        elif mask & ~OUT:
            self._receive(connection)

    def _tick(self, now: int) -> None:
        """End what takes too long; replace what has been idle."""
        for connection in list(self.pool.by_fd.values()):
            exchange = connection.exchange
            if exchange is not None and now - exchange.sent_ns > self._timeout_ns:
                exchange.failure, exchange.detail = failures.TIMEOUT, f"no end after {self._timeout_ns / 1e9:g} s"
                self._drop(connection)
                self._silent_ns += [exchange.sent_ns] * _silent(exchange)
                self._count(now, sign=False)
        if self._silent_ns and self._hangs():
            self._give_up(now)
        self.pool.renew(now)
        if self._on_tick is not None:
            self._on_tick(self.done)

    def _hangs(self) -> bool:
        """Return whether nothing has come for so many sends: a server with a long queue is slow, and doesn't hang."""
        flying = (c.exchange for c in self.pool.by_fd.values() if c.exchange is not None)
        sign_ns = max([self._sign_ns, *(exchange.log[-2] for exchange in flying if not _silent(exchange))])
        self._silent_ns = [sent_ns for sent_ns in self._silent_ns if sent_ns > sign_ns]
        return len(self._silent_ns) >= self._hung_after

    def _give_up(self, now: int) -> None:
        """End every request that is left: none of them would be answered, and each would take as long as the time-out."""
        self.hung = True
        why = f"given up: {len(self._silent_ns)} requests in a row brought nothing in {self._timeout_ns / 1e9:g} s"
        for connection in list(self.pool.by_fd.values()):
            if connection.exchange is not None:
                connection.exchange.failure, connection.exchange.detail = failures.ABANDONED, why
                self._drop(connection)
        for request in self._waiting:
            exchange = Exchange(request.index, now, now)  # never sent, so no other time is true of it
            exchange.failure, exchange.detail = failures.NOT_SENT, why
            self.exchanges.append(exchange)
        self._waiting.clear()
        self._due_ns.clear()
        self.done = self._total


def _silent(exchange: Exchange) -> bool:
    """Return whether nothing came but the first read: servers send an answer's head before they have a token."""
    return len(exchange.log) <= 2
