"""What was sampled of a run's machines as panels over its time: of a few nodes each by itself, of many the range over them.

for panel in machine_panels(read_run(Path("runs/demo"))): panel.name, panel.lines
"""

from dataclasses import dataclass, replace

import numpy as np

from ncdemo.report.bands import band
from ncdemo.report.columns import decimate
from ncdemo.report.read import Run
from ncdemo.report.samples import Curve, Telemetry
from ncdemo.report.show import byte_unit, link_unit

FEW = 4
"""Nodes that have a line each, and panels of their own for their GPUs."""
SLOWED = "GPU slowed down by heat or hardware"
HOST = (
    ("CPU busy, all cores (%)", ("cpu_pct",), ("",)),
    ("CPU of the run, 100 per core (%)", ("process_cpu_pct",), ("",)),
    ("Memory ({})", ("process_rss_bytes", "memory_used_bytes"), ("run", "machine")),
    ("Disk ({}/s)", ("disk_read_bytes_per_s", "disk_write_bytes_per_s"), ("read", "write")),
    ("Network ({}/s)", ("net_recv_bytes_per_s", "net_sent_bytes_per_s"), ("received", "sent")),
)
GPU = (("GPU utilisation (%)", "utilization_pct"), ("GPU memory ({})", "memory_used_bytes"), ("GPU power (W)", "power_w"))
LINKS = (
    ("GPU: PCIe sent ({}/s)", "pcie_tx_bytes_per_s"),
    ("GPU: PCIe received ({}/s)", "pcie_rx_bytes_per_s"),
    ("GPU: NVLink sent ({}/s)", "nvlink_tx_bytes_per_s"),
    ("GPU: NVLink received ({}/s)", "nvlink_rx_bytes_per_s"),
)
MOST_PROCESSES = 4
"""Drawn, those that took most: of a run that starts many, few matter."""
MOST_SLOWED = 8
"""GPUs of many nodes that have a line in the panel of those slowed down, the longest slowed first."""
ALL_PIDS = "GPU memory by process ({})"


@dataclass(frozen=True)
class Line:
    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    dots: bool = False
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    """With low the edges of the range around y; neither, where it is a line alone."""

    @property
    def top(self) -> float:
        return float(np.nanmax(self.y if self.high is None else self.high))


@dataclass(frozen=True)
class Panel:
    title: str
    lines: list[Line]
    node: int | None = None
    """Whose, of a run on several; None: of all."""

    @property
    def name(self) -> str:
        return self.title if self.node is None else f"{self.title}, node {self.node}"


def machines(run: Run) -> dict[int, Telemetry]:
    """Return what was sampled on each node, by its rank."""
    return {node: telemetry for node, telemetry in {0: run.telemetry, **run.nodes}.items() if telemetry is not None}


def machine_panels(run: Run) -> list[Panel]:
    """Return a panel for everything that was measured at least once."""
    known = machines(run)
    return [panel for panel in (*_gpus(known), *_host(known)) if panel.lines]


def _host(known: dict[int, Telemetry]) -> list[Panel]:
    """Return the same panels for one machine and, of several, one for each figure with a line a node, or their range."""
    found = []
    for title, fields, labels in HOST:
        curves = [
            (label, {node: (it.host["time_s"], it.host[name]) for node, it in known.items()})
            for name, label in zip(fields, labels, strict=True)
        ]
        if len(known) > 1:
            found += [_over(_of(title, label), {f"node {node}": curve for node, curve in by_node.items()}) for label, by_node in curves]
        else:
            lines = [line(label, *curve, i) for i, (label, by_node) in enumerate(curves) for curve in by_node.values() if _measured(curve)]
            found.append(_scaled(Panel(title, lines)))
    return found


def _gpus(known: dict[int, Telemetry]) -> list[Panel]:
    if len(known) > FEW:
        return _gpus_of_many(known)
    each = [_gpus_of(telemetry, node if len(known) > 1 else None) for node, telemetry in known.items()]
    return [panel for same in zip(*each, strict=True) for panel in same]


def _gpus_of(telemetry: Telemetry, node: int | None) -> list[Panel]:
    """Return the same panels for whatever machine, without lines where nothing was measured."""

    def panel(title: str, curves: dict[int, Curve]) -> Panel:
        return _scaled(Panel(title, [line(str(i), *curve, i) for i, curve in curves.items() if _measured(curve)], node))

    found = [panel(title, {i: (gpu["time_s"], gpu[name]) for i, gpu in telemetry.gpus.items()}) for title, name in GPU]
    found.append(_scaled(Panel(ALL_PIDS, processes(telemetry), node)))
    found.append(
        panel(SLOWED, {i: (gpu["time_s"], gpu["slowed_pct"] / 100) for i, gpu in telemetry.gpus.items() if np.nansum(gpu["slowed_pct"])})
    )
    return found + [panel(title, {i: links[name] for i, links in telemetry.links.items()}) for title, name in LINKS]


def _gpus_of_many(known: dict[int, Telemetry]) -> list[Panel]:
    """Return the ranges over all GPUs, and of those that were slowed down a line each: which one it was, a range can't say."""
    gpus = {(node, i): gpu for node, telemetry in known.items() for i, gpu in telemetry.gpus.items()}
    links = {(node, i): curves for node, telemetry in known.items() for i, curves in telemetry.links.items()}
    found = [_over(title, {_gpu(key): (gpu["time_s"], gpu[name]) for key, gpu in gpus.items()}) for title, name in GPU]
    slowed = {key: (gpu["time_s"], gpu["slowed_pct"] / 100) for key, gpu in gpus.items() if np.nansum(gpu["slowed_pct"])}
    worst = sorted(sorted(slowed, key=lambda key: -np.nanmean(slowed[key][1]))[:MOST_SLOWED])
    found.append(Panel(SLOWED, [line(_gpu(key), *slowed[key], i) for i, key in enumerate(worst)]))
    return found + [_over(title, {_gpu(key): curves[name] for key, curves in links.items()}) for title, name in LINKS]


def _gpu(key: tuple[int, int]) -> str:
    return f"node {key[0]} GPU {key[1]}"


def _over(title: str, curves: dict[str, Curve]) -> Panel:
    """Return a line per curve, or the range over them where they are many."""
    known = {label: curve for label, curve in curves.items() if _measured(curve)}
    if len(curves) <= FEW:
        return _scaled(Panel(title, [line(label, *curve, i) for i, (label, curve) in enumerate(curves.items()) if label in known]))
    return _scaled(Panel(title, [_range(list(known.values()))] if known else []))


def _range(curves: list[Curve]) -> Line:
    x, low, mean, high = band(curves)
    return Line("mean", x, mean, 0, low=low, high=high)


def processes(telemetry: Telemetry) -> list[Line]:
    """Return the processes that took most GPU memory; of many, those that shared a GPU: of one alone the GPU's own curve says as much."""
    known = telemetry.processes
    gpus = [index for index, _ in known]
    shared = {key: curve for key, curve in known.items() if gpus.count(key[0]) > 1 or len(known) <= MOST_PROCESSES}
    largest = sorted(shared, key=lambda key: -shared[key][1].max())[:MOST_PROCESSES]
    several = len({index for index, _ in shared}) > 1
    return [line(f"{key[0]}: {key[1]}" if several else str(key[1]), *shared[key], n) for n, key in enumerate(sorted(largest))]


def line(label: str, x: np.ndarray, y: np.ndarray, colour: int) -> Line:
    return Line(label, *decimate(x, y), colour)


def _measured(curve: Curve) -> bool:
    return bool(np.isfinite(curve[1]).any())


def _of(title: str, label: str) -> str:
    """Put what a figure is before its unit: "Disk, read ({}/s)"."""
    return title.replace(" (", f", {label} (") if label else title


def _scaled(panel: Panel) -> Panel:
    """Put the byte unit that fits the largest value in the title's place for it."""
    if "{}" not in panel.title or not panel.lines:
        return panel
    fits = link_unit if "PCIe" in panel.title or "NVLink" in panel.title else byte_unit
    scale, unit = fits(max(line.top for line in panel.lines))
    lines = [
        replace(one, y=one.y / scale, low=None if one.low is None else one.low / scale, high=None if one.high is None else one.high / scale)
        for one in panel.lines
    ]
    return replace(panel, title=panel.title.format(unit), lines=lines)
