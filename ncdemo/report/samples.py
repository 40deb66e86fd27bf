"""samples.jsonl to curves: the machine and each GPU over the time of the run, and which GPU stopped answering when."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ncdemo.report.columns import Columns, rows_of, stack
from ncdemo.spec.energy import Attempts

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
GPU = ("time_s", "utilization_pct", "memory_used_bytes", "power_w", "slowed_pct")
FAULTS = {"hw_slowdown": "by hardware", "sw_thermal": "by heat", "hw_thermal": "by heat", "hw_power_brake": "by its power brake"}
"""Throttle reasons that no healthy GPU has: a power cap and idling are normal."""


@dataclass(frozen=True)
class Loss:
    """A GPU that stopped answering."""

    index: int
    at_s: float
    why: str
    returned: bool
    """It answered again later."""


@dataclass
class Health:
    """What went wrong with a GPU that went on."""

    seen_s: float = 0.0
    """The last sample that it is in."""
    samples: int = 0
    """Those that say whether it was slowed down."""
    slowed: dict[str, int] = field(default_factory=dict)
    """How, in the words of FAULTS -> samples."""
    xids: list[tuple[float, int]] = field(default_factory=list)
    """(when, which)."""
    ecc: dict[str, int] = field(default_factory=dict)
    """corrected and uncorrected: how many were counted in the run. What came between two attempts, or was counted before, isn't among them."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of the same, the attempt and the counter in the sample before."""


@dataclass
class Telemetry:
    """Columns named as in Sample and GpuSample; every GPU has its own time_s. slowed_pct is 100 in a sample with a fault, else 0."""

    host: Columns
    gpus: dict[int, Columns] = field(default_factory=dict)
    lost: list[Loss] = field(default_factory=list)
    health: dict[int, Health] = field(default_factory=dict)
    missed: int = 0
    """Ticks of the sampler's schedule that have no sample."""

    @property
    def count(self) -> int:
        return len(self.host["time_s"])


def to_telemetry(batches: Iterable[list[dict[str, Any]]]) -> Telemetry:
    """Read every sample once; memory grows by 72 bytes a sample and 40 a GPU."""
    host: list[np.ndarray] = []
    gpus: dict[int, list[np.ndarray]] = {}
    errors: dict[int, tuple[float, str]] = {}
    health: dict[int, Health] = {}
    missed, tick, attempts = 0, None, Attempts()
    for batch in batches:
        if not batch:
            continue
        host.append(rows_of(batch, HOST))
        rows: dict[int, list[dict[str, Any]]] = {}
        for sample in batch:
            attempt = attempts.of(sample.get("tick"), sample.get("scheduling"))
            if sample.get("gpus"):
                _gpus(sample, attempt, rows, errors, health)
            if type(now := sample.get("tick")) is int:
                # A smaller number is that of another sampler, of the run's next attempt.
                missed += now - tick - 1 if tick is not None and now > tick else 0
                tick = now
        for index, items in rows.items():
            gpus.setdefault(index, []).append(rows_of(items, GPU))
    telemetry = Telemetry(stack(host, HOST), {index: stack(blocks, GPU) for index, blocks in sorted(gpus.items())})
    telemetry.health, telemetry.missed = dict(sorted(health.items())), missed
    telemetry.gpus = {index: gpu for index, gpu in telemetry.gpus.items() if len(gpu["time_s"])}
    telemetry.lost = [loss for index in telemetry.gpus if (loss := _loss(telemetry, index, errors.get(index)))]
    return telemetry


def _gpus(
    sample: dict[str, Any],
    attempt: int,
    rows: dict[int, list[dict[str, Any]]],
    errors: dict[int, tuple[float, str]],
    health: dict[int, Health],
) -> None:
    for gpu in sample["gpus"]:
        if not isinstance(gpu, dict) or not isinstance(gpu.get("index"), int):
            continue
        index = gpu["index"]
        _health(gpu, sample.get("time_s"), attempt, health)
        if gpu.get("error"):
            errors.setdefault(index, (float(sample["time_s"]), str(gpu["error"]).rstrip(".")))
        elif gpu.get("power_w") is gpu.get("utilization_pct") is gpu.get("memory_used_bytes") is gpu.get("temperature_c") is None:
            continue  # NVML was busy with the sample before
        gpu["time_s"] = sample.get("time_s")
        rows.setdefault(index, []).append(gpu)


def _health(gpu: dict[str, Any], time_s: Any, attempt: int, health: dict[int, Health]) -> None:
    found = health.get(gpu["index"]) or health.setdefault(gpu["index"], Health())
    gpu["slowed_pct"], found.seen_s = None, time_s
    if (reasons := gpu.get("throttle_reasons")) is not None:
        found.samples += 1
        faults = {FAULTS[reason] for reason in reasons if reason in FAULTS}
        gpu["slowed_pct"] = 100 if faults else 0
        for fault in faults:
            found.slowed[fault] = found.slowed.get(fault, 0) + 1
    if gpu.get("xids"):
        found.xids += [(time_s, xid) for xid in gpu["xids"]]
    for kind in ("corrected", "uncorrected"):
        if (count := gpu.get(f"ecc_{kind}")) is not None:
            before = found.counts.get(kind)
            if before and before[0] == attempt and before[1] < count:
                found.ecc[kind] = found.ecc.get(kind, 0) + count - before[1]
            found.counts[kind] = (attempt, count)


def _loss(telemetry: Telemetry, index: int, error: tuple[float, str] | None) -> Loss | None:
    """Return when a GPU first said an error, or from when on it is absent; None when it answered to the end."""
    gpu, time_s = telemetry.gpus[index], telemetry.host["time_s"]
    if error:
        later = gpu["time_s"] > error[0]
        returned = any(np.isfinite(gpu[name][later]).any() for name in GPU[1:4])
        return Loss(index, *error, returned)
    after = time_s[time_s > telemetry.health[index].seen_s]
    return Loss(index, float(after[0]), "it is absent from the samples from then on", False) if len(after) else None
