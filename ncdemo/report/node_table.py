"""A row for each node of a run on several: which of them was slow, full or idle, where a curve over all shows that one was.

by_node(read_run(Path("runs/demo")))
"""

from typing import Any

import numpy as np

from ncdemo.report.machine_panels import machines
from ncdemo.report.read import Run
from ncdemo.report.samples import Telemetry
from ncdemo.report.show import NOT_MEASURED, number, percent, size
from ncdemo.report.tables import without_silent

HEADS = (
    ("Node", ""),
    ("Samples", "n"),
    ("Lost", "n"),
    ("CPU busy", "n"),
    ("Memory, most", "n"),
    ("Received/s", "n"),
    ("Sent/s", "n"),
    ("GPUs", "n"),
    ("GPUs busy", "n"),
    ("the idlest", "n"),
    ("Power of all GPUs (W)", "n"),
)


def by_node(run: Run) -> dict[str, Any]:
    return without_silent(HEADS, [[str(node), *_figures(telemetry)] for node, telemetry in machines(run).items()])


def _figures(telemetry: Telemetry) -> list[str]:
    host = telemetry.host
    busy = [mean for gpu in telemetry.gpus.values() if (mean := _mean(gpu["utilization_pct"])) is not None]
    watts = [mean for gpu in telemetry.gpus.values() if (mean := _mean(gpu["power_w"])) is not None]
    memory = host["memory_used_bytes"][np.isfinite(host["memory_used_bytes"])]
    return [
        number(telemetry.count),
        number(telemetry.missed),
        _share(_mean(host["cpu_pct"])),
        size(float(memory.max()) if len(memory) else None),
        size(_mean(host["net_recv_bytes_per_s"])),
        size(_mean(host["net_sent_bytes_per_s"])),
        number(len(telemetry.gpus)) if telemetry.gpus else NOT_MEASURED,
        _share(sum(busy) / len(busy) if busy else None),
        _share(min(busy, default=None)),
        number(sum(watts) if watts and len(watts) == len(telemetry.gpus) else None, 3),
    ]


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _share(pct: float | None) -> str:
    return percent(None if pct is None else pct / 100)
