"""The GPU rows of many samples to columns and counts, a batch at a time.

curves = GpuCurves(); curves.add(samples, times, attempts); curves.flush(); fast_columns(curves.gpus[0])
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter

import numpy as np

from ncdemo.report.columns import Columns, stack, table_of
from ncdemo.report.sample_rows import Row
from ncdemo.spec.gpu_errors import FAULTS

FAST = ("time_s", "utilization_pct", "memory_used_bytes", "power_w", "slowed_pct")
PCIE = ("pcie_tx_bytes_per_s", "pcie_rx_bytes_per_s")
NVLINK = ("nvlink_tx_bytes", "nvlink_rx_bytes")
SLOW = ("time_s", "attempt", *PCIE, *NVLINK)
ECC = ("ecc_corrected", "ecc_uncorrected")
ANSWERS = ("utilization_pct", "memory_used_bytes", "power_w", "temperature_c")
READ = ("index", *ANSWERS, *PCIE, *NVLINK, *ECC)
GET = attrgetter(*READ)
TABLE = (*READ, "time_s", "attempt", "lost", "reasons")
FEW_CALLS = 1 << 14
"""Rows that are sorted by GPU at once."""
LINKS_S = 10.0
"""Between the readings that make a rate: a counter is read once a second and given with the next sample, up to a period later."""


@dataclass
class Gpu:
    """What the samples so far say of one."""

    fast: list[np.ndarray] = field(default_factory=list)
    slow: list[np.ndarray] = field(default_factory=list)
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
    processes: list[np.ndarray] = field(default_factory=list)

    def forget(self) -> None:
        """Free what has been made columns of."""
        for blocks in (self.fast, self.slow, self.processes):
            blocks.clear()


class Reasons(dict[tuple[str, ...] | None, int]):
    """Each set of throttle reasons that comes up -> its number, from 0, which is: not measured."""

    def __init__(self) -> None:
        super().__init__({None: 0})

    def __missing__(self, reasons: tuple[str, ...]) -> int:
        self[reasons] = len(self)
        return self[reasons]

    def slowed_pct(self) -> np.ndarray:
        """Return by number: 100 where a fault is among the reasons, else 0; NaN where not measured."""
        return np.array([np.nan if reasons is None else 100.0 * any(r in FAULTS for r in reasons) for reasons in self])


class GpuCurves:
    def __init__(self) -> None:
        self.gpus: dict[int, Gpu] = {}
        self.reasons = Reasons()
        self._blocks: list[np.ndarray] = []
        self._processes: list[np.ndarray] = []

    def add(self, samples: Sequence[Row], times: np.ndarray, attempts: np.ndarray) -> None:
        """Take the GPUs of samples; `times` and `attempts` are theirs, float [len(samples)]."""
        gpus = [sample.gpus for sample in samples]
        rows = list(chain.from_iterable(gpus))
        if not rows:
            return
        counts = list(map(len, gpus))
        times, attempts = np.repeat(times, counts), np.repeat(attempts, counts)
        lost = np.zeros(len(rows))
        for i in [i for i, row in enumerate(rows) if row.xids or row.error]:
            gpu, row, now_s = self._gpu(rows[i].index), rows[i], float(times[i])
            gpu.xids += [(now_s, xid) for xid in row.xids or ()]
            if row.error:
                lost[i], gpu.error = 1, gpu.error or (now_s, row.error.rstrip("."))
        reasons = [self.reasons[row.throttle_reasons] for row in rows]
        self._blocks.append(np.column_stack((table_of(list(map(GET, rows))), times, attempts, lost, reasons)))
        ran = [
            (row.index, now_s, p.pid, p.memory_bytes) for row, now_s in zip(rows, times.tolist(), strict=True) for p in row.processes or ()
        ]
        self._processes += [table_of(ran)] if ran else []
        if len(self._blocks) * len(rows) > FEW_CALLS:
            self.flush()

    def flush(self) -> None:
        """Sort what was added by GPU."""
        if not self._blocks:
            return
        table = np.concatenate(self._blocks)
        processes = np.concatenate(self._processes or [np.empty((0, 4))])
        self._blocks, self._processes = [], []
        for index in np.unique(table[:, 0]):
            mine = dict(zip(TABLE, table[table[:, 0] == index].T, strict=True))
            gpu = self._gpu(int(index))
            gpu.seen_s = mine["time_s"][-1]
            gpu.reasons = _sum(gpu.reasons, np.bincount(mine["reasons"].astype(int), minlength=len(self.reasons)))
            mine["slowed_pct"] = self.reasons.slowed_pct()[mine["reasons"].astype(int)]
            # With none of these and no error, NVML was busy with the sample before.
            told = np.isfinite([mine[name] for name in ANSWERS]).any(axis=0) | (mine["lost"] > 0)
            gpu.fast.append(np.column_stack([mine[name][told] for name in FAST]))
            told = np.isfinite([mine[name] for name in (*PCIE, *NVLINK)]).any(axis=0)
            gpu.slow.append(np.column_stack([mine[name][told] for name in SLOW]))
            gpu.processes.append(processes[processes[:, 0] == index, 1:])
            for name in ECC:
                _count(gpu, name, mine[name], mine["attempt"])

    def _gpu(self, index: int) -> Gpu:
        return self.gpus.get(index) or self.gpus.setdefault(index, Gpu())


def fast_columns(gpu: Gpu) -> Columns:
    return stack(gpu.fast, FAST)


def link_columns(gpu: Gpu) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return times and bytes per second of each link and direction: of PCIe as read, of NVLink the mean of about LINKS_S."""
    slow = stack(gpu.slow, SLOW)
    found = {name: (slow["time_s"], slow[name]) for name in PCIE}
    for name in NVLINK:
        counted = np.isfinite(slow[name])
        time_s, count, attempt = (slow[column][counted] for column in ("time_s", name, "attempt"))
        _, first = np.unique(attempt * 1e9 + time_s // LINKS_S, return_index=True)
        if len(first) == 1 and len(time_s) > 1:
            first = np.array([0, len(time_s) - 1])  # a run of a few seconds
        gained, took_s = np.diff(count[first]), np.diff(time_s[first])
        whole = (gained >= 0) & (took_s > 0) & (np.diff(attempt[first]) == 0)
        rate = np.divide(gained, took_s, out=np.full(len(gained), np.nan), where=whole)
        found[name.replace("bytes", "bytes_per_s")] = (time_s[first][1:], rate)
    return found


def process_curves(gpu: Gpu) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return times and bytes of GPU memory of each process by its pid, where the driver tells them."""
    found = stack(gpu.processes, ("time_s", "pid", "memory_bytes"), needed=3)
    return {int(pid): (found["time_s"][mine := found["pid"] == pid], found["memory_bytes"][mine]) for pid in np.unique(found["pid"])}


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
