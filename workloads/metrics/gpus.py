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

from workloads.metrics.gpu import row
from workloads.metrics.session import Session

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
        session = self._start(nvml)
        if session is None:
            self._absent = True
            while True:
                self._asked.get().given = []
        threading.Thread(target=self._serve_slow, args=(session,), name="gpus, slow fields", daemon=True).start()
        while True:
            answer = self._asked.get()
            try:
                slow = self._slow.get_nowait()
            except queue.Empty:
                slow = {}
            rows = session.read()
            for found in rows:
                if found["error"] is None:
                    found |= slow.get(found["index"], {})
            if answer.given is None:
                answer.given = rows
            else:
                session.keep(rows)
            self._owed = None

    def _start(self, nvml: Any) -> Session | None:
        """Return None where there is nothing to read."""
        try:
            session = Session(nvml, self._say)
        except Exception as error:  # NVML's own, or ctypes' with a broken library
            if getattr(error, "value", None) not in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
                self._say(f"GPUs are not measured: NVML does not start ({error}); compare `nvidia-smi`")
            return None
        self._count = session.count
        return session if session.count else None

    def _serve_slow(self, session: Session) -> None:
        while True:
            began_s = time.perf_counter()
            session.tend()
            self._slow.put(session.read_slow())
            time.sleep(max(0.0, self._slow_s - (time.perf_counter() - began_s)))
