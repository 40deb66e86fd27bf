"""What one sample holds: CPU, memory, disk, network and the run's process tree, through psutil; GPUs in gpus.py.

The keys are those of ncdemo.spec.result.Sample, spelled out because the sampler's process must not import pydantic.
A reading that the system refuses is None, and standard error says why, once.

    Readings(pid=os.getpid()).sample(time_s=0.0)
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from workloads.metrics.gpus import Gpus

MIN_RATE_S = 0.025
"""Kernel CPU counters tick every 10 ms: over less than this a rate is noise, so it is left for the next sample."""
LIST_S = 1.0
"""Descendants are listed no more often than this: of a run with many threads it is the dearest reading."""

_said: set[str] = set()


def say(line: str) -> None:
    """Print one line on standard error; it may be closed or full, and sampling goes on."""
    with contextlib.suppress(OSError, ValueError):
        print(f"sampler: {line}", file=sys.stderr, flush=True)


def _known(name: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # psutil raises whatever an odd /proc makes it raise; the other readings go on
        if name not in _said:
            _said.add(name)
            say(f"{name} is not measured ({type(error).__name__}: {error})")
        return None


class Readings:
    def __init__(self, pid: int, pid_started: float | None = None) -> None:
        self.tree = Tree(pid, pid_started)
        self._gpus = Gpus(say)
        self._disks = _physical_disks()
        self._rates_s: float | None = None
        self._counters: dict[str, float | None] = {}

    def sample(self, time_s: float) -> dict[str, Any]:
        """Read everything now. Rates are since the sample before that has them, at least MIN_RATE_S ago."""
        now_s = time.perf_counter()
        memory = _known("memory", psutil.virtual_memory)
        rates = self._rates(now_s)
        return {
            "time_s": time_s,
            "cpu_pct": rates["cpu_pct"],
            "process_cpu_pct": rates["process_cpu_pct"],
            "process_rss_bytes": self.tree.rss_bytes,
            "memory_used_bytes": memory and memory.used,
            "disk_read_bytes_per_s": rates["disk_read"],
            "disk_write_bytes_per_s": rates["disk_write"],
            "net_recv_bytes_per_s": rates["net_recv"],
            "net_sent_bytes_per_s": rates["net_sent"],
            "gpus": self._gpus.read(),
        }

    def _rates(self, now_s: float) -> dict[str, float | None]:
        _known("process tree", lambda: self.tree.read(now_s))
        names = ("cpu_pct", "process_cpu_pct", "disk_read", "disk_write", "net_recv", "net_sent")
        dt_s = None if self._rates_s is None else now_s - self._rates_s
        if dt_s is not None and dt_s < MIN_RATE_S:
            return dict.fromkeys(names)
        disk = _known("disk", lambda: _totals(psutil.disk_io_counters(perdisk=True, nowrap=False), self._disks.__contains__))
        net = _known("network", lambda: _totals(psutil.net_io_counters(pernic=True, nowrap=False), lambda nic: not nic.startswith("lo")))
        counters = {
            "process_cpu_pct": None if self.tree.cpu_s is None else 100 * self.tree.cpu_s,
            "disk_read": disk and disk["read_bytes"],
            "disk_write": disk and disk["write_bytes"],
            "net_recv": net and net["bytes_recv"],
            "net_sent": net and net["bytes_sent"],
        }
        cpu_pct = _known("cpu", psutil.cpu_percent)
        before, self._counters, self._rates_s = self._counters, counters, now_s
        return {
            "cpu_pct": None if dt_s is None else cpu_pct,
            **{name: _rate(before.get(name), value, dt_s) for name, value in counters.items()},
        }


class Tree:
    """CPU time and resident memory of one process and its descendants, without this one. None once the process has ended.

    `cpu_s` only grows while the tree is the same: what a member spent stays counted after it has ended.
    """

    def __init__(self, pid: int, started: float | None = None) -> None:
        """Follow `pid`; `started` (psutil create_time) says which process is meant, should its number be used again."""
        self.cpu_s: float | None = None
        self.rss_bytes: int | None = None
        self._spent: dict[psutil.Process, float] = {}
        self._listed_s = self._read_s = float("-inf")
        self._root: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            # Two readings of a start differ by what the wall clock was corrected in between.
            if started is None or abs(root.create_time() - started) < 2:
                self._root = root

    def alive(self) -> bool:
        if self._root is None:
            return False
        try:
            return self._root.is_running() and self._root.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def read(self, now_s: float) -> None:
        """Update cpu_s and rss_bytes; should this fail, both are None."""
        first, cpu_s, rss_bytes = self.cpu_s is None, self.cpu_s or 0.0, 0
        self.cpu_s = self.rss_bytes = None
        dt_s, self._read_s = now_s - self._read_s, now_s
        if now_s - self._listed_s >= LIST_S:
            self._listed_s = now_s
            members = [self._root, *descendants(self._root)] if self._root and self.alive() else []
            self._spent = {p: self._spent.get(p, -1.0) for p in members if p.pid != os.getpid()}
        for process, before in list(self._spent.items()):
            try:
                times, memory = process.cpu_times(), process.memory_info()
                if not memory.rss:  # ended, and its parent hasn't asked for its exit code yet
                    raise psutil.NoSuchProcess(process.pid)
                spent = times.user + times.system
                if before < 0:
                    # Met late: of what it spent since its birth, count the part that this interval is of its life.
                    age_s = max(time.time() - process.create_time(), 1e-3)
                    before = spent if first else spent * (1 - min(1.0, dt_s / age_s))
            except psutil.NoSuchProcess:
                del self._spent[process]
                continue
            except psutil.AccessDenied:
                continue
            cpu_s += max(0.0, spent - before)
            rss_bytes += memory.rss
            self._spent[process] = spent
        if self._root in self._spent:
            self.cpu_s, self.rss_bytes = cpu_s, rss_bytes


def descendants(root: psutil.Process) -> list[psutil.Process]:
    """Return all children of a process, theirs too.

    Linux says each thread's children by itself; psutil reads every process of the machine, longer than the 10 ms between two samples
    at 100 Hz. A kernel without it (CONFIG_PROC_CHILDREN) is asked psutil's way.
    """
    if not os.path.exists(f"/proc/{root.pid}/task/{root.pid}/children"):
        return root.children(recursive=True)
    found, todo = [], [root.pid]
    while todo:
        for pid in _children(todo.pop()):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
                todo.append(pid)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                children += map(int, file.read().split())
    return children


def _rate(before: float | None, now: float | None, dt_s: float | None) -> float | None:
    """Return the growth per second; None without two counters, or when one went down (a device left)."""
    if before is None or now is None or dt_s is None or now < before:
        return None
    return (now - before) / dt_s


def _totals(devices: dict[str, Any], counts: Callable[[str], bool]) -> Mapping[str, float | None]:
    rows = [counters._asdict() for name, counters in devices.items() if counts(name)]
    return {key: sum(row[key] for row in rows) for key in (rows[0] if rows else ())} or dict.fromkeys(
        ("read_bytes", "write_bytes", "bytes_recv", "bytes_sent")
    )


def _physical_disks() -> set[str]:
    """Name the disks with hardware behind them: partitions, RAID and mapped devices would count the same bytes again."""
    try:
        return {name for name in os.listdir("/sys/block") if os.path.exists(f"/sys/block/{name}/device")}
    except OSError:
        return set(_known("disk names", lambda: psutil.disk_io_counters(perdisk=True)) or ())
