"""The GPUs of many samples to columns and counts, a table at a time.

curves = GpuCurves(reasons); curves.add(table, attempts); fast_columns(curves.gpus[0])
"""

from dataclasses import dataclass, field

import numpy as np

from ncdemo.report.columns import Columns, join
from ncdemo.report.sample_tables import Reasons, Table

FAST = ("time_s", "utilization_pct", "memory_used_bytes", "power_w", "slowed_pct")
PCIE = ("pcie_tx_bytes_per_s", "pcie_rx_bytes_per_s")
NVLINK = ("nvlink_tx_bytes", "nvlink_rx_bytes")
SLOW = ("time_s", "attempt", *PCIE, *NVLINK)
PROCESS = ("time_s", "pid", "memory_bytes")
ECC = ("ecc_corrected", "ecc_uncorrected")
ANSWERS = ("utilization_pct", "memory_used_bytes", "power_w", "temperature_c")
LINKS_S = 10.0
"""Between the readings that make a rate: a counter is read once a second and given with the next sample, up to a period later."""


@dataclass
class Gpu:
    """What the samples so far say of one."""

    fast: list[Columns] = field(default_factory=list)
    slow: list[Columns] = field(default_factory=list)
    seen_s: float = 0.0
    """The last sample that it is in."""
    reasons: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    """Samples per number of Reasons."""
    xids: list[tuple[float, int]] = field(default_factory=list)
    """(when, which)."""
    ecc: dict[str, int] = field(default_factory=dict)
    """Of ECC, the memory errors that came between two samples of one attempt."""
    last_ecc: dict[str, tuple[float, float]] = field(default_factory=dict)
    """(count, attempt)."""
    error: tuple[float, str] | None = None
    """When it first stopped answering, and why."""
    processes: list[Columns] = field(default_factory=list)


class GpuCurves:
    def __init__(self, reasons: Reasons) -> None:
        self.gpus: dict[int, Gpu] = {}
        self._reasons = reasons

    def add(self, table: Table, attempts: np.ndarray) -> None:
        """Take the GPUs of samples, of which `attempts` are the attempts, int."""
        rows = dict(table.gpus)
        sample, reasons = rows["sample"], rows["throttle_reasons"].astype(int)
        rows |= {"time_s": table.host["time_s"][sample], "attempt": attempts[sample], "reasons": reasons}
        rows |= {"slowed_pct": self._reasons.slowed_pct()[reasons], "lost": np.zeros(len(sample), dtype=bool)}
        for i, error, xids in table.said:
            gpu, now_s = self._gpu(rows["index"][i]), float(rows["time_s"][i])
            gpu.xids += [(now_s, xid) for xid in xids]
            if error:
                rows["lost"][i], gpu.error = True, gpu.error or (now_s, error.rstrip("."))
        owner = table.processes["gpu"]
        ran = table.processes | {"index": rows["index"][owner], "time_s": rows["time_s"][owner]}
        for index in np.unique(rows["index"]):
            self._take(self._gpu(index), _only(rows, rows["index"] == index))
            self._gpu(index).processes.append(_only({name: ran[name] for name in PROCESS}, ran["index"] == index))

    def _take(self, gpu: Gpu, rows: Columns) -> None:
        gpu.seen_s = rows["time_s"][-1]
        gpu.reasons = _sum(gpu.reasons, np.bincount(rows["reasons"], minlength=len(self._reasons)))
        # With none of these and no error, NVML was busy with the sample before.
        gpu.fast.append(_only({name: rows[name] for name in FAST}, _any(rows, ANSWERS) | rows["lost"]))
        gpu.slow.append(_only({name: rows[name] for name in SLOW}, _any(rows, (*PCIE, *NVLINK)) | rows["lost"]))
        for name in ECC:
            _count(gpu, name, rows[name], rows["attempt"])

    def _gpu(self, index: float) -> Gpu:
        return self.gpus.setdefault(int(index), Gpu())


def fast_columns(gpu: Gpu) -> Columns:
    return join(gpu.fast, FAST)


def link_columns(gpu: Gpu) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return times and bytes per second of each link and direction: of PCIe as read, of NVLink the mean of about LINKS_S.

    While the GPU did not answer they are NaN.
    """
    slow = join(gpu.slow, SLOW)
    found = {name: (slow["time_s"], slow[name]) for name in PCIE}
    slow["losses"] = np.cumsum(~_any(slow, (*PCIE, *NVLINK)))
    for name in NVLINK:
        counted = np.isfinite(slow[name])
        time_s, count, attempt, losses = (slow[column][counted] for column in ("time_s", name, "attempt", "losses"))
        _, first = np.unique(attempt * 1e9 + time_s // LINKS_S, return_index=True)
        if len(first) == 1 and len(time_s) > 1:
            first = np.array([0, len(time_s) - 1])  # a run of a few seconds
        gained, took_s = np.diff(count[first]), np.diff(time_s[first])
        whole = (gained >= 0) & (took_s > 0) & (np.diff(attempt[first]) == 0) & (np.diff(losses[first]) == 0)
        rate = np.divide(gained, took_s, out=np.full(len(gained), np.nan), where=whole)
        found[name.replace("bytes", "bytes_per_s")] = (time_s[first][1:], rate)
    return found


def process_curves(gpu: Gpu) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return times and bytes of GPU memory of each process by its pid, where the driver tells them."""
    found = join(gpu.processes, PROCESS, needed=3)
    return {int(pid): (found["time_s"][mine := found["pid"] == pid], found["memory_bytes"][mine]) for pid in np.unique(found["pid"])}


def _only(columns: Columns, wanted: np.ndarray) -> Columns:
    """Return the rows that are wanted."""
    if wanted.all():
        return dict(columns)
    at = np.flatnonzero(wanted)  # a mask would be counted for each column again
    return {name: column[at] for name, column in columns.items()}


def _any(columns: Columns, names: tuple[str, ...]) -> np.ndarray:
    """Say of each row whether it has one of these."""
    found: np.ndarray = np.logical_or.reduce([~np.isnan(columns[name]) for name in names])
    return found


def _sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Add counts, of which the later know more numbers."""
    found = other.copy()
    found[: len(one)] += one
    return found


def _count(gpu: Gpu, name: str, counts: np.ndarray, attempts: np.ndarray) -> None:
    """Add the gains of a counter within an attempt; the next may run on another machine, or after the driver was loaded again."""
    read = ~np.isnan(counts)
    if not read.any():
        return
    counts, attempts = counts[read], attempts[read]
    last, attempt = gpu.last_ecc.get(name, (counts[0], attempts[0]))
    gpu.last_ecc[name] = (counts[-1], attempts[-1])
    gains = np.diff(counts, prepend=last)
    within = np.diff(attempts, prepend=attempt) == 0
    gpu.ecc[name] = gpu.ecc.get(name, 0) + int(gains[within & (gains > 0)].sum())
