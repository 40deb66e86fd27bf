"""samples.jsonl to curves: the machine and each GPU over the time of the run, and which GPU stopped answering when."""

from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ncdemo.report.columns import Columns, join
from ncdemo.report.gpu_curves import ECC, FAST, Gpu, GpuCurves, fast_columns, link_columns, process_curves
from ncdemo.report.lines import records
from ncdemo.report.sample_parts import sample_tables
from ncdemo.report.sample_rows import row_lines
from ncdemo.report.sample_tables import Reasons, Table, tables
from ncdemo.spec.attempts import again
from ncdemo.spec.gpu_errors import FAULTS

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
Curve = tuple[np.ndarray, np.ndarray]
"""Times and values."""


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

    samples: int = 0
    """Those that say whether it was slowed down."""
    slowed: dict[str, int] = field(default_factory=dict)
    """By what, in the words of FAULTS -> samples."""
    xids: list[tuple[float, int]] = field(default_factory=list)
    """(when, which)."""
    ecc: dict[str, int] = field(default_factory=dict)
    """corrected and uncorrected: how many came during the run."""


@dataclass
class Telemetry:
    """Columns named as in Sample and GpuSample; every GPU has its own time_s. slowed_pct is 100 in a sample with a fault, else 0."""

    host: Columns
    gpus: dict[int, Columns] = field(default_factory=dict)
    links: dict[int, dict[str, Curve]] = field(default_factory=dict)
    """GPU -> bytes per second over PCIe and NVLink, sent (tx) and received (rx)."""
    processes: dict[tuple[int, int], Curve] = field(default_factory=dict)
    """GPU and pid -> bytes of GPU memory."""
    lost: list[Loss] = field(default_factory=list)
    health: dict[int, Health] = field(default_factory=dict)
    missed: int = 0
    """Ticks of the sampler's schedule that have no sample."""

    @property
    def count(self) -> int:
        return len(self.host["time_s"])


class Ticks:
    """Counts the ticks that have no sample, and the attempts."""

    def __init__(self) -> None:
        self.missed, self._last, self._attempt = 0, np.nan, 0

    def attempts(self, ticks: np.ndarray) -> np.ndarray:
        """Return the attempt of each sample, from 0; `ticks` are NaN where a sample has none."""
        begins = np.zeros(len(ticks), dtype=int)
        at = np.flatnonzero(~np.isnan(ticks))
        if len(at):
            steps = np.diff(ticks[at], prepend=self._last)
            self.missed += int((steps[steps > 0] - 1).sum())
            begins[at[again(steps)]] = 1
            self._last = ticks[at[-1]]
        found = self._attempt + np.cumsum(begins)
        self._attempt = found[-1]
        return found


def read_telemetry(path: Path, problems: list[str]) -> Telemetry:
    """Read a samples.jsonl; `problems` as of `records`."""
    found: list[str] = []
    reasons = Reasons()
    try:
        telemetry = _telemetry(sample_tables(path, found, reasons), reasons)
    except BrokenProcessPool:  # killed, probably for want of memory: one process takes the least
        found, reasons = [], Reasons()
        telemetry = _telemetry(tables(records(path, found, row_lines), reasons), reasons)
    problems += found
    return telemetry


def to_telemetry(batches: Iterable[list[Any]]) -> Telemetry:
    """Return the same of samples, Row or dict."""
    reasons = Reasons()
    return _telemetry(tables(batches, reasons), reasons)


def _telemetry(found: Iterable[Table], reasons: Reasons) -> Telemetry:
    """Read every sample once; memory grows by 72 bytes a sample, 40 a GPU, and 64 a second and GPU."""
    host: list[Columns] = []
    ticks = Ticks()
    curves = GpuCurves(reasons)
    for table in found:
        host.append({name: table.host[name] for name in HOST})
        curves.add(table, ticks.attempts(table.host["tick"]))
    telemetry = Telemetry(join(host, HOST), missed=ticks.missed)
    for index, gpu in sorted(curves.gpus.items()):
        telemetry.health[index] = _health(gpu, reasons)
        columns = fast_columns(gpu)
        if len(columns["time_s"]):
            telemetry.gpus[index] = columns
            telemetry.links[index] = link_columns(gpu)
            telemetry.processes |= {(index, pid): curve for pid, curve in process_curves(gpu).items()}
            if loss := _loss(index, gpu, columns, telemetry.host["time_s"]):
                telemetry.lost.append(loss)
    return telemetry


def _health(gpu: Gpu, reasons: Reasons) -> Health:
    slowed: dict[str, int] = {}
    for of, count in zip(reasons, gpu.reasons, strict=False):
        for fault in sorted({FAULTS[reason] for reason in of or () if reason in FAULTS}) if count else ():
            slowed[fault] = slowed.get(fault, 0) + int(count)
    ecc = {name.removeprefix("ecc_"): gpu.ecc[name] for name in ECC if name in gpu.ecc}
    return Health(int(gpu.reasons[1:].sum()), slowed, gpu.xids, ecc)


def _loss(index: int, gpu: Gpu, columns: Columns, time_s: np.ndarray) -> Loss | None:
    """Return when a GPU first said an error, or from when on it is absent; None when it answered to the end."""
    if gpu.error:
        later = columns["time_s"] > gpu.error[0]
        returned = any(np.isfinite(columns[name][later]).any() for name in FAST[1:4])
        return Loss(index, *gpu.error, returned)
    after = time_s[time_s > gpu.seen_s]
    return Loss(index, float(after[0]), "it is absent from the samples from then on", False) if len(after) else None
