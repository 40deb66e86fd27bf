"""What NVML says of the GPUs, read on threads of their own: a GPU that falls off the bus can block NVML for good.

One thread reads what takes microseconds, whenever it is asked; another, once a second, what takes longer (gpu.py says which).
No NVML, no driver or no GPU: an empty list.

    answer = Gpus(say=print, period_s=0.5).ask()
    rows = answer.rows()    # None: not yet
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from workloads.metrics.gpu import Events, Gpu, row

WAIT_S = 0.3
"""A reading takes milliseconds; what takes longer is reported as not answering, and the other readings go on."""
SLOW_S = 1.0
"""Between two readings of the slow fields, or one period of the sampler if that is longer."""


class Answer:
    """The rows of one sample, GpuSample each, given by the NVML thread and taken by another."""

    def __init__(self, gpus: "Gpus", given: list[dict[str, Any]] | None = None) -> None:
        self.given = given
        self.asked_s = time.perf_counter()
        self._gpus = gpus

    def rows(self) -> list[dict[str, Any]] | None:
        """Return them, None while they may still come; after WAIT_S rows that say so, and a later answer is dropped."""
        if self.given is None and time.perf_counter() - self.asked_s > WAIT_S:
            self.given = self._gpus.silent(self.asked_s)
        return self.given


class Gpus:
    def __init__(self, say: Callable[[str], None], period_s: float) -> None:
        self._say, self._slow_s = say, max(SLOW_S, period_s)
        self._count = 0
        self._absent = False
        self._owed: Answer | None = None
        """What the NVML thread works on."""
        self._asked: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._slow: queue.SimpleQueue[dict[int, dict[str, Any]]] = queue.SimpleQueue()
        nvml = self._import()
        if nvml:
            threading.Thread(target=self._serve, args=(nvml,), name="gpus", daemon=True).start()

    def ask(self) -> Answer:
        """Ask for a reading now, and don't wait: while NVML is busy with the one before, this one's rows say nothing."""
        if self._absent:
            return Answer(self, [])
        if owed := self._owed:
            silent = time.perf_counter() - owed.asked_s > WAIT_S
            return Answer(self, self.silent(owed.asked_s) if silent else [row(index) for index in range(self._count)])
        self._owed = answer = Answer(self)
        self._asked.put(answer)
        return answer

    def silent(self, since_s: float) -> list[dict[str, Any]]:
        error = f"NVML has not answered for {time.perf_counter() - since_s:.1f} s"
        return [row(index, error=error) for index in range(self._count)]

    def _import(self) -> Any:
        """Return the module; imported before the first tick, as an import on a thread keeps the others from running."""
        try:
            import pynvml
        except ImportError:
            self._absent = True
            return None
        return pynvml

    def _serve(self, nvml: Any) -> None:
        try:
            nvml.nvmlInit()
            self._count = nvml.nvmlDeviceGetCount()
        except Exception as error:  # NVML's own, or ctypes' with a broken library: either way there is nothing to read
            if getattr(error, "value", None) not in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
                self._say(f"GPUs are not measured: NVML does not start ({error}); compare `nvidia-smi`")
        if not self._count:
            self._absent = True
            while True:
                self._asked.get().given = []
        gpus, events = [Gpu(nvml, index) for index in range(self._count)], Events(nvml, self._count)
        threading.Thread(target=self._serve_slow, args=(nvml,), name="gpus, slow fields", daemon=True).start()
        while True:
            answer = self._asked.get()
            try:
                slow = self._slow.get_nowait()
            except queue.Empty:
                slow = {}
            rows, xids = [gpu.read() for gpu in gpus], events.new()
            for found in rows:
                found["xids"] = xids.get(found["index"])
                if found["error"] is None:
                    found |= slow.get(found["index"], {})
            if answer.given is None:
                answer.given = rows
            else:  # dropped: what happens once goes to the next sample
                events.keep(xids)
            self._owed = None

    def _serve_slow(self, nvml: Any) -> None:
        gpus = [Gpu(nvml, index) for index in range(self._count)]
        while True:
            began_s = time.perf_counter()
            self._slow.put({index: gpu.read_slow() for index, gpu in enumerate(gpus)})
            time.sleep(max(0.0, self._slow_s - (time.perf_counter() - began_s)))
