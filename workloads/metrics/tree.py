"""CPU time and memory of a process and its descendants, from files of /proc that stay open; elsewhere than on Linux, psutil's.

What was read is made numbers of later, many samples together (machine.py says why); in the order in which it was read.

    tree = Tree(pid); tree.add(tree.look(now_s)); tree.rss_bytes
"""

import contextlib
import os
import sys
import time
from typing import Any

import psutil

from workloads.metrics.machine import Kept

LIST_S = 1.0
"""Descendants are listed no more often than this: of a run with many threads it is the dearest reading."""


class Member:
    """One process on Linux. Its file stays that of the process that it was opened for, should the number be used again."""

    def __init__(self, pid: int) -> None:
        """Raise OSError when there is no such process."""
        self._stat = Kept(f"/proc/{pid}/stat")
        self._tick_s, self._page_bytes = 1 / os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")

    def look(self) -> tuple[bytes, float]:
        """Return what spent() makes numbers of; raise OSError once the process has ended."""
        return self._stat.start(), time.clock_gettime(time.CLOCK_BOOTTIME)

    def spent(self, look: Any) -> tuple[float, int, float]:
        """Return CPU seconds, resident bytes and age in seconds; raise OSError where the process had ended."""
        # The fields after the name, which may hold anything: 0 is the state, field 3 of proc_pid_stat(5).
        fields = look[0].rpartition(b") ")[2].split()
        if fields[0] in b"ZX":  # ended, and its parent hasn't asked for its exit code yet
            raise ProcessLookupError
        age_s = look[1] - int(fields[19]) * self._tick_s
        return (int(fields[11]) + int(fields[12])) * self._tick_s, int(fields[21]) * self._page_bytes, age_s


class PortableMember:
    def __init__(self, pid: int) -> None:
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess as error:
            raise ProcessLookupError from error

    def look(self) -> tuple[float, int, float]:
        try:
            with self._process.oneshot():
                times, rss, born = self._process.cpu_times(), self._process.memory_info().rss, self._process.create_time()
                ended = not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.AccessDenied as error:
            raise PermissionError from error
        except psutil.NoSuchProcess as error:
            raise ProcessLookupError from error
        if ended:
            raise ProcessLookupError
        return times.user + times.system, rss, time.time() - born

    def spent(self, look: Any) -> tuple[float, int, float]:
        spent_s, rss_bytes, age_s = look
        return spent_s, rss_bytes, age_s


MEMBER = Member if sys.platform == "linux" else PortableMember


Look = tuple[float, list[tuple[int, Any, Any]]]
"""When it was (perf_counter), and of each process its number, who it is, and what it looked like or what kept it from view."""


class Tree:
    """CPU time and resident memory of one process and its descendants, without this one. None once the process has ended.

    `cpu_s` only grows while the tree is the same: what a member spent stays counted after it has ended.
    """

    def __init__(self, pid: int, started: float | None = None) -> None:
        """Follow `pid`; `started` (psutil create_time) says which process is meant, should its number be used again."""
        self.cpu_s: float | None = None
        self.rss_bytes: int | None = None
        self._pid = pid
        self._root: Member | PortableMember | None = None
        self._members: dict[int, Member | PortableMember] = {}
        self._spent: dict[int, float] = {}
        self._listed_s = self._added_s = float("-inf")
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            root = MEMBER(pid)
            # Two readings of a start differ by what the wall clock was corrected in between.
            if started is None or abs(psutil.Process(pid).create_time() - started) < 2:
                self._root = root

    def alive(self) -> bool:
        if self._root is None:
            return False
        try:
            self._root.spent(self._root.look())
        except PermissionError:
            return True
        except OSError:
            return False
        return True

    def look(self, now_s: float) -> Look:
        """Read every member, those anew that are listed now."""
        if now_s - self._listed_s >= LIST_S:
            self._listed_s = now_s
            self._list()
        found: list[tuple[int, Any, Any]] = []
        for pid, member in list(self._members.items()):
            try:
                found.append((pid, member, member.look()))
            except PermissionError as error:
                found.append((pid, member, error))
            except OSError:
                del self._members[pid]
        return now_s, found

    def add(self, look: Look | None) -> None:
        """Update cpu_s and rss_bytes; should this fail, or the look have failed (None), both are None."""
        first, cpu_s, rss_bytes, spent_s = self.cpu_s is None, self.cpu_s or 0.0, 0, {}
        self.cpu_s = self.rss_bytes = None
        if look is None:
            return
        dt_s, self._added_s = look[0] - self._added_s, look[0]
        for pid, member, raw in look[1]:
            before = self._spent.get(pid)
            if isinstance(raw, PermissionError):
                if before is not None:
                    spent_s[pid] = before
                continue
            try:
                spent, rss, age_s = member.spent(raw)
            except OSError:
                continue
            if before is None:
                # Met late: of what it spent since its birth, count the part that this interval is of its life.
                before = spent if first else spent * (1 - min(1.0, dt_s / max(age_s, 1e-3)))
            cpu_s += max(0.0, spent - before)
            rss_bytes += rss
            spent_s[pid] = spent
        self._spent = spent_s
        if self._pid in spent_s:
            self.cpu_s, self.rss_bytes = cpu_s, rss_bytes

    def _list(self) -> None:
        pids = [self._pid, *descendants(self._pid)] if self.alive() else []
        found: dict[int, Member | PortableMember] = {}
        for pid in pids:
            if pid == self._pid and self._root:
                found[pid] = self._root
            elif pid != os.getpid():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    found[pid] = self._members.get(pid) or MEMBER(pid)
        self._members = found


def descendants(root: int) -> list[int]:
    """Return the numbers of all children of a process, theirs too.

    Linux says each thread's children by itself; psutil reads every process of the machine, longer than the 10 ms between two samples
    at 100 Hz. A kernel without it (CONFIG_PROC_CHILDREN) is asked psutil's way.
    """
    if not os.path.exists(f"/proc/{root}/task/{root}/children"):
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(root).children(recursive=True)]
        return []
    found, todo = [], [root]
    while todo:
        children = _children(todo.pop())
        found += children
        todo += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                children += map(int, file.read().split())
    return children
