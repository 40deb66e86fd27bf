"""samples.jsonl to curves: the machine and each GPU over the time of the run, and which GPU stopped answering when."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ncdemo.report.columns import Columns, rows_of, stack

HOST = (
    "time_s",
    "cpu_pct",
    "process_cpu_pct",
    "process_rss_bytes",
    "memory_used_bytes",
    "disk_read_bytes_per_s",
    "disk_write_bytes_per_s",
    "net_recv_bytes_per_s",
    "net_sent_bytes_per_s",
)
GPU = ("time_s", "utilization_pct", "memory_used_bytes", "power_w")


@dataclass(frozen=True)
class Loss:
    """A GPU that stopped answering."""

    index: int
    at_s: float
    why: str
    returned: bool
    """It answered again later."""


@dataclass
class Telemetry:
    """Columns named as in Sample and GpuSample; every GPU has its own time_s."""

    host: Columns
    gpus: dict[int, Columns] = field(default_factory=dict)
    lost: list[Loss] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.host["time_s"])


def to_telemetry(batches: Iterable[list[dict[str, Any]]]) -> Telemetry:
    """Read every sample once; memory grows by 72 bytes a sample and 32 a GPU."""
    host: list[np.ndarray] = []
    gpus: dict[int, list[np.ndarray]] = {}
    errors: dict[int, tuple[float, str]] = {}
    for batch in batches:
        if not batch:
            continue
        host.append(rows_of(batch, HOST))
        rows: dict[int, list[dict[str, Any]]] = {}
        for sample in batch:
            if sample.get("gpus"):
                _gpus(sample, rows, errors)
        for index, items in rows.items():
            gpus.setdefault(index, []).append(rows_of(items, GPU))
    telemetry = Telemetry(stack(host, HOST), {index: stack(blocks, GPU) for index, blocks in sorted(gpus.items())})
    telemetry.gpus = {index: gpu for index, gpu in telemetry.gpus.items() if len(gpu["time_s"])}
    telemetry.lost = [loss for index in telemetry.gpus if (loss := _loss(telemetry, index, errors.get(index)))]
    return telemetry


def _gpus(sample: dict[str, Any], rows: dict[int, list[dict[str, Any]]], errors: dict[int, tuple[float, str]]) -> None:
    for gpu in sample["gpus"]:
        if not isinstance(gpu, dict) or not isinstance(gpu.get("index"), int):
            continue
        gpu["time_s"] = sample.get("time_s")
        rows.setdefault(gpu["index"], []).append(gpu)
        if gpu.get("error"):
            errors.setdefault(gpu["index"], (gpu["time_s"], str(gpu["error"]).rstrip(".")))


def _loss(telemetry: Telemetry, index: int, error: tuple[float, str] | None) -> Loss | None:
    """Return when a GPU first said an error, or from when on it is absent; None when it answered to the end."""
    gpu, time_s = telemetry.gpus[index], telemetry.host["time_s"]
    if error:
        later = gpu["time_s"] > error[0]
        returned = any(np.isfinite(gpu[name][later]).any() for name in GPU[1:])
        return Loss(index, *error, returned)
    after = time_s[time_s > gpu["time_s"][-1]]
    return Loss(index, float(after[0]), "it is absent from the samples from then on", False) if len(after) else None
