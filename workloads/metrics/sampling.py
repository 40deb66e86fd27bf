"""The sampler's own process: when it reads, and what ends it. Started by sampler.py; sample_writer.py writes.

It wakes only to sample, to write, or twice a second to see whether the run still lives; nothing heavy is imported here.

    sample("samples.jsonl", hz=2, zero_ns=time.perf_counter_ns(), pid=1234)
"""

import contextlib
import gc
import os
import select
import signal
import sys
import time

from workloads.metrics.priority import hurry
from workloads.metrics.readings import Readings, say
from workloads.metrics.sample_writer import Writer
from workloads.metrics.ticks import Ticks

PARENT_CHECK_S = 0.5
WRITE_S = 0.9
"""Samples of this long are written together: what a kill of the sampler itself loses, with gpus.WAIT_S at most."""


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


def sample(out: str, hz: float, zero_ns: int, pid: int, pid_started: float | None = None, parent: int | None = None) -> None:
    """Write a sample per tick (ticks.py) until told to stop; with no `parent`, also until `pid` ends."""
    stop, how, readings = Stop(parent), hurry(), Readings(pid, pid_started, hz=hz)
    writer = Writer(out, say, every=max(1, int(hz * WRITE_S)))
    _settle()
    ticks = Ticks(hz, zero_ns, readings, writer, how)
    ticks.stand_by()
    while True:
        end = stop.wait(ticks.due_s())
        if end == "orphaned" or (parent is None and not readings.tree.alive()):
            break
        if end == "told":
            ticks.last()
            break
        ticks.take()
    writer.close()
    if ticks.lost or writer.lost:
        say(f"{out}: of {ticks.next} samples {ticks.lost} were late and skipped, {writer.lost} could not be written ({how})")


def _settle() -> None:
    """Let no collection of garbage, thread or limit of files come between ticks."""
    gc.freeze()
    sys.setswitchinterval(0.0005)
    with contextlib.suppress(ImportError, OSError, ValueError):  # a kept file per process of the run
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
