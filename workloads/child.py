"""A workload as a child process: its words go to its log and to our stderr, and nothing that it started outlives it.

child = Child(workload_command(spec, folder, sys.executable), env, folder / "log.txt")
code = child.wait(stop, patience_s=20)
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

LOG = logging.getLogger("ncdemo.job")
POLL_S = 0.1
LEFTOVERS_S = 10.0
"""What a workload left behind when it ended by itself may take so long to end."""


class Stop:
    """What signals, or an eviction, have asked of this process: to end in good order; a second signal, to end at once."""

    def __init__(self) -> None:
        self.since: float | None = None
        """time.monotonic() of the first request; None before it."""
        self.name: str | None = None
        self.at_once = False
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def ask(self, name: str) -> None:
        """Ask the workload to end in good order, for a reason; later ones change nothing."""
        if self.since is None:
            self.since, self.name = time.monotonic(), name

    def _asked(self, number: int, _frame: Any) -> None:
        # The signal that follows an eviction's notice is no second request.
        self.at_once, self._signalled = self._signalled, True
        self.ask(signal.Signals(number).name)


class Child:
    """A workload in a session of its own, so that a signal to our group reaches it through us alone, and once."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        _adopt_orphans()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        self._pump = threading.Thread(target=self._copy, args=(log,), daemon=True)
        self._pump.start()

    def wait(self, stop: Stop, patience_s: float) -> int:
        """Return the exit code once it and all that it started have ended; after a signal that takes patience_s at most."""
        until: float | None = None
        told: set[int] = set()
        while (code := self._process.poll()) is None or self._family():
            if until is None and (stop.since is not None or code is not None):
                until = stop.since + patience_s if stop.since is not None else time.monotonic() + LEFTOVERS_S
                LOG.info("%s: the workload is asked to end", stop.name or "its launcher ended and left processes")
            if until is not None:
                self._tell(told)
                if stop.at_once or time.monotonic() > until:
                    LOG.warning("the workload was killed: %s", "a second signal came" if stop.at_once else "it didn't end in time")
                    code = self._kill()
                    break
            time.sleep(POLL_S)
        self._pump.join(timeout=2)
        return code

    def _tell(self, told: set[int]) -> None:
        """Send SIGTERM once: to its group, where a launcher tells its ranks; when that is gone, to each group that was left."""
        groups = set()
        for process in self._family():
            with suppress(ProcessLookupError):
                groups.add(os.getpgid(process.pid))
        for group in ({self._process.pid} & groups or groups) - told:
            told.add(group)
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)

    def _kill(self) -> int:
        for process in self._family():
            with suppress(psutil.Error):
                process.kill()
        try:
            return self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:  # even a killed process stays while a driver's call hangs
            return -signal.SIGKILL

    def _family(self) -> list[psutil.Process]:
        """Return what runs of the workload, orphans included: our descendants outside our own session."""
        return [process for process in psutil.Process().children(recursive=True) if _is_workload(process)]

    def _copy(self, log: Path) -> None:
        """Copy what it says, as it comes. A full disk or a closed stderr must not stop it: that would block the workload."""
        assert self._process.stdout
        with self._process.stdout as said, log.open("ab", buffering=0) as file:
            while chunk := os.read(said.fileno(), 1 << 16):
                with suppress(OSError):
                    file.write(chunk)
                with suppress(OSError, ValueError):
                    os.write(sys.stderr.fileno(), chunk)


def _is_workload(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) != os.getsid(0)
    except (psutil.Error, OSError):
        return False


def _adopt_orphans() -> None:
    """Become the parent of every process whose own parent ends, as PID 1 of a container is: a launcher may die before its ranks."""
    if sys.platform == "linux":
        set_child_subreaper = 36  # <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
