"""A session of NVML: the GPUs it shows, and another session when one of them stays silent, as after its reset or a driver loaded anew.

A session knows nothing of a driver that was loaded after it, and while it is open no GPU that it has can be reset and no driver
unloaded: where no GPU answers, it is closed between two tries. Sources: NVML API Reference, initialization and cleanup; nvidia-smi(1), -r.

    session = Session(pynvml, say=print); rows = session.read()    # on one thread
    session.tend(); slow = session.read_slow()                     # on another, once a second
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from workloads.metrics.gpu import Events, Gpu, bus_id, row

FIRST_S, LONGEST_S = 15.0, 300.0
"""From a loss to another session, and between two of them: longer each time, as a session that begins leaves out a reading of healthy GPUs.
The first is later than gpu.RETRY_S, as a new handle may be enough."""
PATIENCE_S = 0.3
"""For a reading to end: one that hangs in the driver can't be taken back, and no session ends under it."""


class Session:
    """A GPU keeps its index for good, by its place on the PCI bus: NVML would count those that it finds then."""

    def __init__(self, nvml: Any, say: Callable[[str], None]) -> None:
        """Raise what NVML does when it doesn't start."""
        self._nvml, self._say = nvml, say
        nvml.nvmlInit()
        self.count: int = nvml.nvmlDeviceGetCount()
        self._places = [bus_id(nvml, index) for index in range(self.count)]
        self._errors: list[str | None] = [None] * self.count
        self._lost: dict[int, float] = {}
        """GPU -> since when tend knows of it."""
        self._wait_s = FIRST_S
        self._due_s = time.perf_counter() + self._wait_s
        self._free = threading.Lock()
        """Held by whoever reads on the first thread, and from one session to the next."""
        self._begin()

    def _begin(self) -> None:
        self._open = True
        self._gpus, self._slow = ([Gpu(self._nvml, index, place) for index, place in enumerate(self._places)] for _ in range(2))
        self._events = Events(self._nvml, self._gpus)

    def read(self) -> list[dict[str, Any]]:
        """Return a row per GPU; between two sessions, with nothing but what was wrong before."""
        if not self._free.acquire(blocking=False):
            return [row(index, error=error) for index, error in enumerate(self._errors)]
        try:
            if not self._open:
                return [row(index, error=error) for index, error in enumerate(self._errors)]
            rows, xids = [gpu.read() for gpu in self._gpus], self._events.new()
            self._errors = [found["error"] for found in rows]
        finally:
            self._free.release()
        return [found | {"xids": xids.get(found["index"])} for found in rows]

    def keep(self, rows: list[dict[str, Any]]) -> None:
        """Take rows that come too late: their XIDs, which happen once, go to the next."""
        self._events.keep({found["index"]: found["xids"] for found in rows if found["xids"]})

    def read_slow(self) -> dict[int, dict[str, Any]]:
        """Return the slow fields by GPU. Not while `tend` runs."""
        return {index: gpu.read_slow() for index, gpu in enumerate(self._slow)} if self._open else {}

    def tend(self) -> None:
        """Say which GPUs were lost and which came back, and begin another session when it is time."""
        now_s = time.perf_counter()
        for index, error in enumerate(self._errors):
            if error and index not in self._lost:
                self._lost[index] = now_s
                self._say(f"GPU {index} does not answer: {error}")
            elif not error and index in self._lost:
                self._say(f"GPU {index} answers again, after {now_s - self._lost.pop(index):.0f} s")
        if not self._lost:
            self._due_s, self._wait_s = now_s + FIRST_S, FIRST_S
        elif now_s >= self._due_s and self._free.acquire(timeout=PATIENCE_S):
            try:
                self._errors = self._renew()
            finally:
                self._free.release()
            self._wait_s = min(2 * self._wait_s, LONGEST_S)
            self._due_s = time.perf_counter() + self._wait_s

    def _renew(self) -> list[str | None]:
        """Return what each GPU's error is in another session."""
        self._close()
        try:
            self._init()
        except Exception as error:  # NVML's own, or ctypes' with a broken library
            return [str(error) or type(error).__name__] * self.count
        self._begin()
        errors: list[str | None] = [gpu.read()["error"] for gpu in self._gpus]
        if all(errors):
            self._close()
        return errors

    def _close(self) -> None:
        if self._open:
            self._open = False
            with suppress(Exception):  # a driver that is gone may refuse even this
                self._nvml.nvmlShutdown()

    def _init(self) -> None:
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
                raise
            _load_anew(nvml)
            nvml.nvmlInit()


def _load_anew(nvml: Any) -> None:
    """Let pynvml, which keeps the library for good, take the one that came with an upgraded driver.

    By libc's own functions: ctypes' wait with the interpreter locked, and every thread with them.
    """
    libc = ctypes.CDLL(None)
    libc.dlopen.restype, libc.dlclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    name = nvml.nvmlLib._name
    libc.dlclose(nvml.nvmlLib._handle)
    nvml.nvmlLib = None
    nvml._nvmlGetFunctionPointer_cache.clear()
    if handle := libc.dlopen(name.encode(), os.RTLD_NOW):
        nvml.nvmlLib = ctypes.CDLL(name, handle=handle)
