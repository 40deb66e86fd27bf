"""What NVML says of each GPU, read on a thread of its own: a GPU that falls off the bus can block NVML for good.

The keys are those of ncdemo.spec.result.GpuSample. No NVML, no driver or no GPU: an empty list.

    Gpus(say=print).read()
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

WAIT_S = 0.3
"""A reading takes milliseconds; what takes longer is reported as not answering, and CPU samples go on."""
RETRY_S = 10.0
"""A GPU that failed is asked again this much later: each question to a lost GPU may be slow."""


class Gpus:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = 0
        self._absent = False
        self._waiting_since: float | None = None
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[list[dict[str, Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()

    def read(self) -> list[dict[str, Any]]:
        """Return one reading per GPU, at most WAIT_S from now; an overdue answer is dropped, as its time is not known."""
        if self._absent:
            return []
        now_s = time.perf_counter()
        try:
            if self._waiting_since is not None:
                self._answered.get_nowait()
            self._waiting_since = now_s
            self._asked.put(None)
            answer = self._answered.get(timeout=WAIT_S)
        except queue.Empty:
            silent_s = time.perf_counter() - (self._waiting_since or now_s)
            return [_gpu(index, error=f"NVML has not answered for {silent_s:.1f} s") for index in range(self._count)]
        self._waiting_since = None
        return answer

    def _serve(self) -> None:
        try:
            import pynvml as nvml

            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except ImportError:
            count = 0
        except Exception as error:  # NVML's own, or ctypes' with a broken library: either way there is nothing to read
            count = 0
            if getattr(error, "value", None) not in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
                self._say(f"GPUs are not measured: NVML does not start ({error}); compare `nvidia-smi`")
        if not count:
            self._absent = True
            self._answered.put([])
            return
        self._count = count
        gpus = [Gpu(nvml, index) for index in range(count)]
        while True:
            self._asked.get()
            self._answered.put([gpu.read() for gpu in gpus])


class Gpu:
    """One GPU. After a failure: error in every reading, asked again every RETRY_S."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml, self._index = nvml, index
        self._handle: Any = None
        self._error: str | None = None
        self._failed_s = 0.0

    def read(self) -> dict[str, Any]:
        if self._error is not None and time.perf_counter() - self._failed_s < RETRY_S:
            return _gpu(self._index, error=self._error)
        try:
            self._handle = self._handle or self._nvml.nvmlDeviceGetHandleByIndex(self._index)
            reading = _gpu(self._index, self._fields())
        except Exception as error:  # whatever NVML does must not end the other readings
            self._handle, self._error, self._failed_s = None, str(error) or type(error).__name__, time.perf_counter()
            return _gpu(self._index, error=self._error)
        self._error = None
        return reading

    def _fields(self) -> dict[str, float | None]:
        nvml, handle = self._nvml, self._handle
        return {
            "utilization_pct": self._given(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "memory_used_bytes": self._given(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "power_w": self._given(lambda: nvml.nvmlDeviceGetPowerUsage(handle), 1e-3),
            "energy_j": self._given(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle), 1e-3),
            "temperature_c": self._given(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "sm_clock_hz": self._given(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM), 1e6),
        }

    def _given(self, read: Callable[[], float], scale: float = 1) -> float | None:
        """Return one value, None when this GPU doesn't have it (a MIG slice has no utilization). Raise when the GPU fails."""
        nvml = self._nvml
        lacking = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_NO_PERMISSION, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        try:
            return read() * scale
        except nvml.NVMLError as error:
            if error.value in lacking:
                return None
            raise


def _gpu(index: int, fields: dict[str, float | None] | None = None, *, error: str | None = None) -> dict[str, Any]:
    names = ("utilization_pct", "memory_used_bytes", "power_w", "energy_j", "temperature_c", "sm_clock_hz")
    return {"index": index, "error": error, **{name: (fields or {}).get(name) for name in names}}
