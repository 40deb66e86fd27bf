"""The sampler's own process: when it reads, what it writes, and what ends it. Started by sampler.py.

It wakes only to sample, or twice a second to see whether the run still lives; nothing heavy is imported here.

    sample("samples.jsonl", hz=2, zero_ns=time.perf_counter_ns(), pid=1234)
"""

import json
import os
import select
import signal
import sys
import time

from workloads.metrics.readings import Readings, say

PARENT_CHECK_S = 0.5


class Stop:
    """Says when to end: told by a byte or a signal (after a last sample), or because the parent has died (at once).

    The parent's end of standard input closes with it, even by SIGKILL, unless a fork of it lives on: so its number is checked too.
    """

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._signalled, told = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.write(told, b"."))

    def wait(self, deadline_s: float) -> str | None:
        """Sleep until `deadline_s` (perf_counter). Return None then; earlier "told" or "orphaned" when the end has come."""
        files = [self._signalled] + ([sys.stdin.fileno()] if self._parent else [])
        while True:
            left_s = max(0.0, deadline_s - time.perf_counter())
            ready, _, _ = select.select(files, [], [], min(left_s, PARENT_CHECK_S))
            if ready:
                return "told" if os.read(ready[0], 1) else "orphaned"
            if self._parent and os.getppid() != self._parent:
                return "orphaned"
            if time.perf_counter() >= deadline_s:
                return None


class Lines:
    """A file that holds whole lines only; a line that doesn't fit is lost, counted, and said once."""

    def __init__(self, path: str) -> None:
        self._path, self.lost = path, 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._file).st_size

    def write(self, line: str) -> None:
        data = line.encode() + b"\n"
        try:
            written = os.write(self._file, data)
            if written < len(data):
                os.ftruncate(self._file, self._size)
                raise OSError(f"{written} of {len(data)} bytes were written")
            self._size += written
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                say(f"{self._path}: {error}; samples are lost until there is room")


def sample(out: str, hz: float, zero_ns: int, pid: int, pid_started: float | None = None, parent: int | None = None) -> None:
    """Write samples at start + k / hz until told to stop; with no `parent`, also until `pid` ends. Late ticks are skipped."""
    stop, lines, readings = Stop(parent), Lines(out), Readings(pid, pid_started)
    start_s, tick, skipped = time.perf_counter(), 0, 0
    while True:
        end = stop.wait(start_s + tick / hz)
        if end == "orphaned" or (parent is None and not readings.tree.alive()):
            break
        lines.write(json.dumps(readings.sample((time.perf_counter_ns() - zero_ns) / 1e9)))
        if end == "told":
            break
        due = int((time.perf_counter() - start_s) * hz) + 1
        skipped, tick = skipped + max(0, due - tick - 1), max(due, tick + 1)
    if skipped or lines.lost:
        say(f"{out}: of {tick} samples {skipped} were late and skipped, {lines.lost} could not be written")
