"""The sampler's schedule, kept by two threads: a core that stands still, as virtual ones do, keeps one of them and seldom both.

ticks = Ticks(hz=100, zero_ns=0, readings=readings, writer=writer, scheduling="round-robin"); ticks.stand_by()
ticks.take()
"""

import contextlib
import os
import threading
import time
from functools import partial
from typing import Any

from workloads.metrics.readings import Readings
from workloads.metrics.sample_writer import Writer

STANDBY_HZ = 50
"""From this rate on a second thread stands by: at lower ones a tick can wait for as long as cores stand still."""
STANDBY_S = 0.003
"""How late a tick is when the second thread takes it; less where a period is shorter than ten times that."""


class Ticks:
    """Tick k is due at start + k / hz. It is taken, however late, until the next is due; then it is lost: skipped, and counted."""

    def __init__(self, hz: float, zero_ns: int, readings: Readings, writer: Writer, scheduling: str) -> None:
        """`zero_ns`: perf_counter_ns at which the run's clock is zero."""
        self._hz, self._zero_ns, self._readings, self._writer = hz, zero_ns, readings, writer
        self._pins = scheduling == "round-robin"  # a thread of a lower class must be free to go where there is room
        self._first = {"scheduling": scheduling}
        self._start_s, self._lock, self._ended = time.perf_counter(), threading.Lock(), False
        self.next = 0
        """The tick that is due next."""
        self.lost = 0

    def due_s(self) -> float:
        """Return when the next tick is due, on the clock of perf_counter."""
        return self._start_s + self.next / self._hz

    def take(self) -> None:
        """Take the newest tick that is due; the other thread may have."""
        with self._lock:
            now_ns = time.perf_counter_ns()
            tick = int((now_ns / 1e9 - self._start_s) * self._hz)
            if tick < self.next or self._ended:
                return
            late_s = now_ns / 1e9 - self._start_s - tick / self._hz
            self._add({"tick": tick, "late_s": round(late_s, 6)}, now_ns)
            self.next, self.lost, self._first = tick + 1, self.lost + tick - self.next, {}

    def last(self) -> None:
        """Take one more, outside the schedule, and end it."""
        with self._lock:
            self._ended = True
            self._add({"tick": None, "late_s": None}, time.perf_counter_ns())

    def stand_by(self) -> None:
        """Let a second thread, on a core of its own where that may be chosen, take what this one has missed."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if self._hz < STANDBY_HZ or len(cores) < 2:
            return
        threading.Thread(target=self._serve, args=(cores[0],), name="standby", daemon=True).start()
        self._pin(cores[-1])

    def _serve(self, core: int) -> None:
        self._pin(core)
        patience_s = min(STANDBY_S, 0.3 / self._hz)
        while not self._ended:
            if (left_s := self.due_s() + patience_s - time.perf_counter()) > 0:
                time.sleep(left_s)
            else:
                self.take()

    def _pin(self, core: int) -> None:
        if self._pins:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {core})  # of this thread alone

    def _add(self, head: dict[str, Any], now_ns: int) -> None:
        head |= {"unix_s": round(time.time(), 3), "time_s": round((now_ns - self._zero_ns) / 1e9, 6), **self._first}
        taken = self._readings.take()
        self._writer.add(head, taken.gpus, partial(self._readings.fields, taken))
