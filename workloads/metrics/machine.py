"""The machine's counters: on Linux one pread each of files of /proc that stay open, elsewhere psutil's.

Counters count since boot. Each method raises what reading raises, ValueError for a file that lacks a field.

    machine().memory_used_bytes()
"""

import os
import sys
from typing import Protocol

import psutil

SECTOR_BYTES = 512
"""Of /proc/diskstats, whatever the disk's own sectors are (Documentation/admin-guide/iostats.rst)."""


class Machine(Protocol):
    def memory_used_bytes(self) -> int: ...

    def cpu_s(self) -> tuple[float, float]:
        """Return busy and all seconds, summed over cores; waiting for a disk is idle."""

    def disk_bytes(self) -> tuple[int, int] | None:
        """Return bytes read and written; None without a disk."""

    def net_bytes(self) -> tuple[int, int] | None:
        """Return bytes received and sent, none of them counted twice and loopback aside; None without a network."""


def machine() -> Machine:
    return Linux() if sys.platform == "linux" else Portable()


class Kept:
    """A file of /proc, opened once: it says what holds now whenever it is read from its start."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        data = os.pread(self._file, 1 << 16, 0)
        # The kernel gives a list's lines a page at a time.
        while more := os.pread(self._file, 1 << 16, len(data)):
            data += more
        return data

    def start(self) -> bytes:
        """Return its first 4 KiB at most: all of a short file."""
        return os.pread(self._file, 4096, 0)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


class Linux:
    def __init__(self) -> None:
        self._stat, self._meminfo, self._diskstats, self._net = (
            Kept(f"/proc/{name}") for name in ("stat", "meminfo", "diskstats", "net/dev")
        )
        self._disks = {name.encode() for name in _physical_disks()}
        self._bodiless = {name.encode() for name in bodiless_nics()}
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def memory_used_bytes(self) -> int:
        text = self._meminfo.start()
        return _kib(text, b"MemTotal:") - _kib(text, b"MemAvailable:")

    def cpu_s(self) -> tuple[float, float]:
        # user nice system idle iowait irq softirq steal; guests are in user and nice already.
        ticks = [int(field) for field in self._stat.start().split(b"\n", 1)[0].split()[1:9]]
        total = sum(ticks)
        return (total - ticks[3] - ticks[4]) * self._tick_s, total * self._tick_s

    def disk_bytes(self) -> tuple[int, int] | None:
        rows = [fields for line in self._diskstats.read().splitlines() if (fields := line.split())[2] in self._disks]
        return _sums(rows, 5, 9, SECTOR_BYTES)

    def net_bytes(self) -> tuple[int, int] | None:
        lines = [line.partition(b":") for line in self._net.read().splitlines()[2:]]
        return _sums([counters.split() for name, _, counters in lines if name.strip() not in self._bodiless], 0, 8)


class Portable:
    def memory_used_bytes(self) -> int:
        memory = psutil.virtual_memory()
        return memory.total - memory.available

    def cpu_s(self) -> tuple[float, float]:
        times = psutil.cpu_times()
        total = sum(times)
        return total - times.idle, total

    def disk_bytes(self) -> tuple[int, int] | None:
        disk = psutil.disk_io_counters(nowrap=False)
        return disk and (disk.read_bytes, disk.write_bytes)

    def net_bytes(self) -> tuple[int, int] | None:
        rows = [row for name, row in psutil.net_io_counters(pernic=True, nowrap=False).items() if name not in bodiless_nics()]
        return (sum(row.bytes_recv for row in rows), sum(row.bytes_sent for row in rows)) if rows else None


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
