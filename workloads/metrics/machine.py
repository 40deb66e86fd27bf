"""The machine's counters: on Linux one pread each of files of /proc that stay open, elsewhere psutil's.

Reading is one thing, for the moment of a sample, and making numbers of what was read another, for when many are done together: between
two samples the run has emptied the caches, and so the first of several costs as much as three more.

    here = machine(); here.memory_used_bytes(here.look())
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import psutil

SECTOR_BYTES = 512
"""Of a disk's stat, whatever its own sectors are (Documentation/block/stat.rst)."""


Look = dict[str, Any]
"""What was read of `memory`, `cpu`, `disk` and `net`, or the error that came instead."""


class Machine(Protocol):
    """Counters count since boot. Each method raises what reading raised, KeyError for what wasn't read, ValueError for a file without the field."""

    def look(self, *, counters: bool = True) -> Look:
        """Read memory, and with `counters` the rest."""

    def memory_used_bytes(self, look: Look) -> int: ...

    def cpu_s(self, look: Look) -> tuple[float, float]:
        """Return busy and all seconds, summed over cores; waiting for a disk is idle."""

    def disk_bytes(self, look: Look) -> tuple[int, int] | None:
        """Return bytes read and written; None without a disk."""

    def net_bytes(self, look: Look) -> tuple[int, int] | None:
        """Return bytes received and sent, none of them counted twice and loopback aside; None without a network."""


def machine() -> Machine:
    return Linux() if sys.platform == "linux" else Portable()


class Kept:
    """A file of /proc or /sys, opened once: it says what holds now whenever it is read from its start."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        # The kernel gives a list's lines a page at a time, as many as fit: after one that lacks a quarter of it none comes.
        data = os.pread(self._file, 4096, 0)
        if len(data) < 3072:
            return data
        while more := os.pread(self._file, 1 << 16, len(data)):
            data += more
        return data

    def start(self) -> bytes:
        """Return its first KiB at most: all of a short file."""
        return os.pread(self._file, 1024, 0)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


class Linux:
    def __init__(self) -> None:
        stat, meminfo, net = (Kept(f"/proc/{name}") for name in ("stat", "meminfo", "net/dev"))
        # /proc/diskstats has partitions and loop devices too: one disk's own file takes a third of that.
        disks = [Kept(f"/sys/block/{name}/stat") for name in _physical_disks()]
        self._memory = {"memory": meminfo.start}
        self._all = self._memory | {"cpu": stat.start, "disk": lambda: [disk.start() for disk in disks], "net": net.read}
        self._bodiless = {name.encode() for name in bodiless_nics()}
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def look(self, *, counters: bool = True) -> Look:
        return _look(self._all if counters else self._memory)

    def memory_used_bytes(self, look: Look) -> int:
        text = _read(look, "memory")
        return _kib(text, b"MemTotal:") - _kib(text, b"MemAvailable:")

    def cpu_s(self, look: Look) -> tuple[float, float]:
        # user nice system idle iowait irq softirq steal; guests are in user and nice already.
        ticks = [int(field) for field in _read(look, "cpu").split(b"\n", 1)[0].split()[1:9]]
        total = sum(ticks)
        return (total - ticks[3] - ticks[4]) * self._tick_s, total * self._tick_s

    def disk_bytes(self, look: Look) -> tuple[int, int] | None:
        return _sums([text.split() for text in _read(look, "disk")], 2, 6, SECTOR_BYTES)

    def net_bytes(self, look: Look) -> tuple[int, int] | None:
        lines = [line.partition(b":") for line in _read(look, "net").splitlines()[2:]]
        return _sums([counters.split() for name, _, counters in lines if name.strip() not in self._bodiless], 0, 8)


class Portable:
    def look(self, *, counters: bool = True) -> Look:
        reads: dict[str, Callable[[], Any]] = {"memory": psutil.virtual_memory}
        if counters:
            reads |= {
                "cpu": psutil.cpu_times,
                "disk": lambda: psutil.disk_io_counters(nowrap=False),
                "net": lambda: psutil.net_io_counters(pernic=True, nowrap=False),
            }
        return _look(reads)

    def memory_used_bytes(self, look: Look) -> int:
        memory = _read(look, "memory")
        return int(memory.total - memory.available)

    def cpu_s(self, look: Look) -> tuple[float, float]:
        times = _read(look, "cpu")
        total = sum(times)
        return total - times.idle, total

    def disk_bytes(self, look: Look) -> tuple[int, int] | None:
        disk = _read(look, "disk")
        return disk and (disk.read_bytes, disk.write_bytes)

    def net_bytes(self, look: Look) -> tuple[int, int] | None:
        rows = [row for name, row in _read(look, "net").items() if name not in bodiless_nics()]
        return (sum(row.bytes_recv for row in rows), sum(row.bytes_sent for row in rows)) if rows else None


def _look(reads: dict[str, Callable[[], Any]]) -> Look:
    with suppress(Exception):  # an odd /proc may raise anything; the other readings go on
        return {name: read() for name, read in reads.items()}
    found: Look = {}
    for name, read in reads.items():
        try:
            found[name] = read()
        except Exception as error:
            found[name] = error
    return found


def _read(look: Look, name: str) -> Any:
    if isinstance(found := look[name], Exception):
        raise found
    return found


def _kib(text: bytes, name: bytes) -> int:
    return int(text[text.index(name) + len(name) :].split(None, 1)[0]) * 1024


def _sums(rows: list[list[bytes]], first: int, second: int, scale: int = 1) -> tuple[int, int] | None:
    return (scale * sum(int(row[first]) for row in rows), scale * sum(int(row[second]) for row in rows)) if rows else None


def _physical_disks() -> list[str]:
    """Name the disks with hardware behind them: partitions, RAID and mapped devices would count the same bytes again."""
    return [name for name in os.listdir("/sys/block") if os.path.exists(f"/sys/block/{name}/device")]


def bodiless_nics(folder: str = "/sys/class/net") -> set[str]:
    """Name the interfaces whose bytes another one counts as well: the loopback, and what has a master.

    On Azure each interface with accelerated networking is there twice, and its virtual function's master counts for both. Where one
    has hardware behind it, bridges and containers' ends have not, and what they carry to the world passes it.
    """
    try:
        nics = [nic for nic in os.listdir(folder) if not nic.startswith("lo")]
    except OSError:
        return {"lo", "lo0"}
    own = [nic for nic in nics if not os.path.exists(f"{folder}/{nic}/master")]
    real = [nic for nic in own if os.path.exists(f"{folder}/{nic}/device")]
    return {"lo", *nics} - set(real or own)
