"""One GPU through NVML: its fields, and the XIDs that the driver reports. The keys are those of ncdemo.spec.result.GpuSample.

What a device doesn't have is None (NVML says "not supported", "no permission" or lacks the function); any other error fails the GPU.
Units and limits: NVML API Reference, https://docs.nvidia.com/deploy/nvml-api/ (device queries, field values, events).

    Gpu(pynvml, 0).read()
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

RETRY_S = 10.0
"""A GPU that failed is asked again this much later: each question to a lost GPU may be slow."""
ALL_LINKS = 0xFFFFFFFF
"""Scope of an NVLink field: the links together."""
NAMES = (
    "utilization_pct",
    "memory_used_bytes",
    "power_w",
    "energy_j",
    "temperature_c",
    "sm_clock_hz",
    "memory_clock_hz",
    "throttle_reasons",
)
"""In every sample. The slow fields are there only when they were read."""
REASONS = (
    "gpu_idle",
    "clocks_setting",
    "power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display_clocks",
)
"""Bits of NVML's clocks event reasons from the lowest, named as by dcgm-exporter."""


def row(index: int, error: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "error": error, **{name: fields.get(name) for name in NAMES}, "xids": None}


def bus_id(nvml: Any, index: int) -> str | None:
    """Return where a GPU is on the PCI bus; None when it doesn't say."""
    try:
        found = nvml.nvmlDeviceGetPciInfo(nvml.nvmlDeviceGetHandleByIndex(index)).busId
    except Exception:  # lost from the start, or a slice of a GPU that has none
        return None
    return found.decode() if isinstance(found, bytes) else str(found)


class Gpu:
    """After a failure: error in every reading, asked again every RETRY_S."""

    def __init__(self, nvml: Any, index: int, bus_id: str | None = None) -> None:
        """`bus_id`: its place on the PCI bus, by which it is found if that is known."""
        self._nvml, self.index, self._bus_id = nvml, index, bus_id
        self._handle: Any = None
        self._error: str | None = None
        self._failed_s = 0.0
        self._lacking: set[str] = set()

    def handle(self) -> Any:
        """Return a new handle. Raise what NVML does when the GPU is lost."""
        nvml, place = self._nvml, self._bus_id
        return nvml.nvmlDeviceGetHandleByPciBusId(place) if place else nvml.nvmlDeviceGetHandleByIndex(self.index)

    def read(self) -> dict[str, Any]:
        """Return what NVML answers at once; a reading takes well under a millisecond."""
        fields = self._read(self._fields)
        return row(self.index, error=self._error, **fields)

    def read_slow(self) -> dict[str, Any]:
        """Return what is too slow for every tick: NVML watches the PCI bus for 20 ms per direction. Of a failed GPU, nothing."""
        return self._read(self._slow_fields)

    def _read(self, fields: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self._error is not None and time.perf_counter() - self._failed_s < RETRY_S:
            return {}
        try:
            self._handle = self._handle or self.handle()
            found = fields()
        except Exception as error:  # whatever NVML does must not end the other readings
            self._handle, self._error, self._failed_s = None, str(error) or type(error).__name__, time.perf_counter()
            self._lacking.clear()
            return {}
        self._error = None
        return found

    def _fields(self) -> dict[str, Any]:
        nvml, handle = self._nvml, self._handle
        return {
            "utilization_pct": self._given("utilization", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "memory_used_bytes": self._given("memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "power_w": self._given("power", lambda: nvml.nvmlDeviceGetPowerUsage(handle) * 1e-3),
            "energy_j": self._given("energy", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3),
            "temperature_c": self._given("temperature", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "sm_clock_hz": self._given("sm clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 1e6),
            "memory_clock_hz": self._given("memory clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM) * 1e6),
            "throttle_reasons": self._throttle_reasons(),
        }

    def _throttle_reasons(self) -> list[str] | None:
        nvml, handle = self._nvml, self._handle
        bits = self._given("reasons", lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        if bits is None:  # a driver before 535 has them by their older name alone
            bits = self._given("older reasons", lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return None if bits is None else [name for bit, name in enumerate(REASONS) if bits >> bit & 1]

    def _slow_fields(self) -> dict[str, Any]:
        nvml, handle = self._nvml, self._handle
        sent, received = self._given("nvlink", lambda: self._nvlink_bytes()) or (None, None)
        return {
            "pcie_tx_bytes_per_s": self._pcie(nvml.NVML_PCIE_UTIL_TX_BYTES),
            "pcie_rx_bytes_per_s": self._pcie(nvml.NVML_PCIE_UTIL_RX_BYTES),
            "nvlink_tx_bytes": sent,
            "nvlink_rx_bytes": received,
            "ecc_corrected": self._ecc(nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            "ecc_uncorrected": self._ecc(nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            "processes": self._given(
                "processes",
                lambda: [{"pid": p.pid, "memory_bytes": p.usedGpuMemory} for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle)],
            ),
        }

    def _pcie(self, direction: int) -> float | None:
        """NVML gives KB/s."""
        found: float | None = self._given(
            f"pcie {direction}", lambda: self._nvml.nvmlDeviceGetPcieThroughput(self._handle, direction) * 1e3
        )
        return found

    def _ecc(self, kind: int) -> int | None:
        nvml = self._nvml
        found: int | None = self._given(f"ecc {kind}", lambda: nvml.nvmlDeviceGetTotalEccErrors(self._handle, kind, nvml.NVML_VOLATILE_ECC))
        return found

    def _nvlink_bytes(self) -> tuple[int | None, int | None]:
        """NVML counts KiB. A field that isn't there has an error of its own."""
        nvml = self._nvml
        fields = (nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX)
        values = nvml.nvmlDeviceGetFieldValues(self._handle, [(field, ALL_LINKS) for field in fields])
        whole = nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
        sent, received = (v.value.ullVal * 1024 if v.nvmlReturn == nvml.NVML_SUCCESS and v.valueType == whole else None for v in values)
        return sent, received

    def _given(self, name: str, read: Callable[[], Any]) -> Any:
        """Return one value, None when this GPU doesn't have it (a MIG slice has no utilization). Raise when the GPU fails."""
        if name in self._lacking:
            return None
        nvml = self._nvml
        try:
            return read()
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_NO_PERMISSION, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                raise
            self._lacking.add(name)
            return None


class Events:
    """XIDs, the driver's numbered errors, as they come."""

    MOST = 64
    """Taken at once: a GPU that fails in a loop must not keep the others waiting."""

    def __init__(self, nvml: Any, gpus: Sequence[Gpu]) -> None:
        self._nvml = nvml
        self._index: dict[int, int] = {}
        self._kept: dict[int, list[int]] = {}
        try:
            self._set = nvml.nvmlEventSetCreate()
        except Exception:  # NVML's own or ctypes'; without a set no GPU has events
            return
        for gpu in gpus:
            try:
                handle = gpu.handle()
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._set)
                self._index[_address(handle)] = gpu.index
            except Exception:  # not supported here, e.g. in a virtual machine's slice of a GPU; its XIDs are None
                continue

    def new(self) -> dict[int, list[int]]:
        """Return the XIDs since the last call, by the index of each GPU that can have them. Never waits."""
        nvml, found = self._nvml, {index: self._kept.pop(index, []) for index in self._index.values()}
        for _ in range(self.MOST if self._index else 0):
            try:
                event = nvml.nvmlEventSetWait(self._set, 0)
            except Exception:  # NVML_ERROR_TIMEOUT: none is left; or a lost GPU's error, which its reading says
                break
            index = self._index.get(_address(event.device))
            if index is not None and event.eventType == nvml.nvmlEventTypeXidCriticalError:
                found[index].append(event.eventData)
        return found

    def keep(self, xids: dict[int, list[int]]) -> None:
        """Give these again with the next."""
        self._kept = xids


def _address(handle: Any) -> int:
    import ctypes

    return ctypes.cast(handle, ctypes.c_void_p).value or 0
