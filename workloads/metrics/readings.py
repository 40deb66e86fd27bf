"""What one sample holds: the machine (machine.py), the run's process tree (tree.py) and what NVML is asked (gpus.py).

The keys are those of ncdemo.spec.result.Sample, spelled out because the sampler's process must not import pydantic.
A reading that the system refuses is None, and standard error says why, once.

    readings = Readings(pid=os.getpid(), hz=2)
    readings.fields(readings.take())
"""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workloads.metrics import tree
from workloads.metrics.gpus import Answer, Gpus
from workloads.metrics.machine import Look, machine

MIN_RATE_S = 0.025
"""Kernel CPU counters tick every 10 ms: over less than this a rate is noise, so it is left for the next sample."""
RATES = ("cpu_pct", "process_cpu_pct", "disk_read", "disk_write", "net_recv", "net_sent")

_said: set[str] = set()


def say(line: str) -> None:
    """Print one line on standard error; it may be closed or full, and sampling goes on."""
    with contextlib.suppress(OSError, ValueError):
        print(f"sampler: {line}", file=sys.stderr, flush=True)


def _known(name: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # an odd /proc may raise anything; the other readings go on
        if name not in _said:
            _said.add(name)
            say(f"{name} is not measured ({type(error).__name__}: {error})")
        return None


@dataclass
class Taken:
    """What was read for one sample, not yet made numbers of."""

    gpus: Answer
    machine: Look
    tree: tree.Look | None
    dt_s: float | None
    """Since the sample before that has rates; None: none has."""


class Readings:
    def __init__(self, pid: int, pid_started: float | None = None, *, hz: float) -> None:
        self.tree = tree.Tree(pid, pid_started)
        self._machine = machine()
        self._gpus = Gpus(say, 1 / hz)
        self._rates_s: float | None = None
        self._counters: dict[str, float | None] = {}

    def take(self) -> Taken:
        """Read everything now, but for what NVML is still to answer. Rates are since the sample before that has them."""
        gpus, now_s = self._gpus.ask(), time.perf_counter()
        dt_s = None if self._rates_s is None else now_s - self._rates_s
        rates = dt_s is None or dt_s >= MIN_RATE_S
        look = self._machine.look(counters=rates)
        if rates:
            self._rates_s = now_s
        return Taken(gpus, look, _known("process tree", lambda: self.tree.look(now_s)), dt_s)

    def fields(self, taken: Taken) -> dict[str, Any]:
        """Return a sample's fields but for the GPUs'. Samples come in the order in which they were taken."""
        here, look = self._machine, taken.machine
        memory_used_bytes = _known("memory", lambda: here.memory_used_bytes(look))
        rates = self._rates(taken)
        return {
            "cpu_pct": rates["cpu_pct"],
            "process_cpu_pct": rates["process_cpu_pct"],
            "process_rss_bytes": self.tree.rss_bytes,
            "memory_used_bytes": memory_used_bytes,
            "disk_read_bytes_per_s": rates["disk_read"],
            "disk_write_bytes_per_s": rates["disk_write"],
            "net_recv_bytes_per_s": rates["net_recv"],
            "net_sent_bytes_per_s": rates["net_sent"],
        }

    def _rates(self, taken: Taken) -> dict[str, float | None]:
        here, look, dt_s = self._machine, taken.machine, taken.dt_s
        _known("process tree", lambda: self.tree.add(taken.tree))
        if "cpu" not in look:
            return dict.fromkeys(RATES)
        busy_s, all_s = _known("cpu", lambda: here.cpu_s(look)) or (None, None)
        disk = _known("disk", lambda: here.disk_bytes(look)) or (None, None)
        net = _known("network", lambda: here.net_bytes(look)) or (None, None)
        tree_s = self.tree.cpu_s
        counters = dict(zip((*RATES, "all"), (busy_s, None if tree_s is None else 100 * tree_s, *disk, *net, all_s), strict=True))
        before, self._counters = self._counters, counters
        rates = {name: _rate(before.get(name), counters[name], dt_s) for name in counters}
        busy, whole = rates["cpu_pct"], rates.pop("all")
        # Both in seconds per second: their ratio doesn't depend on when exactly the kernel counted.
        rates["cpu_pct"] = min(100.0, round(100 * busy / whole, 3)) if busy is not None and whole else None
        return rates


def _rate(before: float | None, now: float | None, dt_s: float | None) -> float | None:
    """Return the growth per second; None without two counters, or when one went down (a device left)."""
    if before is None or now is None or dt_s is None or now < before:
        return None
    return round((now - before) / dt_s, 3)
