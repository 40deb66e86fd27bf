"""What the machine did meanwhile: stacked panels over one time axis, with loss and throughput or the bench's cells on top."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from ncdemo.report.columns import decimate
from ncdemo.report.figure import ALARM, DASHES, NARROW, PAPER, SERIES, WIDE, Plot, drawing, panels, to_svg
from ncdemo.report.gpu_curves import LINKS_S
from ncdemo.report.gpu_health import MOST_XIDS
from ncdemo.report.read import Run
from ncdemo.report.requests import CellKey
from ncdemo.report.samples import Telemetry
from ncdemo.report.show import byte_unit

HEIGHT, GAP = 66, 30
SLOWED = "GPU slowed down by heat or hardware"
ENGINE = (
    ("Requests waiting, as the engine says", "waiting", 1),
    ("Requests running, as the engine says", "running", 1),
    ("Key-value cache used (%)", "kv_cache_used", 100),
)
SHARES = ("Key-value cache used (%)", "CPU busy, all cores (%)", "GPU utilisation (%)")
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
LETTER = 5.8
"""Mean width of one, in a title or a legend."""
LABEL = 50
"""Room that an XID's name takes."""
MOST_PROCESSES = 4
"""Drawn, those that took most: of a run that starts many, few matter."""
ALL_PIDS = "GPU memory by process ({})"


@dataclass(frozen=True)
class Line:
    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    lines: list[Line]
    node: int | None = None
    """Whose, of a run on several."""

    @property
    def name(self) -> str:
        return self.title if self.node is None else f"{self.title}, node {self.node}"


def telemetry_plot(run: Run, colours: dict[str, int]) -> Plot | None:
    """Draw one run's time line, for wide and for narrow pages; None when there is nothing over time."""
    stack = _work(run) + _queues(run, colours) + _machine(run)
    windows = [(key, cell.start_s, cell.end_s) for key, cell in run.cells.items() if cell.start_s is not None and cell.end_s is not None]
    if not stack and not windows:
        return None
    ends = [float(np.nanmax(line.x)) for panel in stack for line in panel.lines if len(line.x)] + [end for _, _, end in windows]
    caption = "Seconds since the run's start."
    caption += " Shaded: the time in which each cell was measured." if windows else ""
    machines = _machines(run)
    caption += " Dashed: an XID." if any(map(_xids_of, machines.values())) else ""
    caption += _links_caption(machines.values())

    def draw(width: float) -> str:
        offset = 1 if windows else 0
        fig, axes = panels(len(stack) + offset, width, HEIGHT, gap=GAP)
        for ax in axes:
            ax.set_xlim(0, max(ends) or 1)
            ax.tick_params(labelbottom=ax is axes[-1])
        for ax, panel in zip(axes[offset:], stack, strict=True):
            _panel(ax, panel)
            for key, start, end in windows:
                ax.axvspan(start, end, color=SERIES[colours[key.subject] % 8], alpha=0.13, linewidth=0)
            if panel.title.startswith("GPU"):
                first = next(p for p in stack if p.title.startswith("GPU") and p.node == panel.node)
                _xids(ax, _xids_of(machines[panel.node or 0]), named=panel is first, width=width)
        if windows:
            _cells(axes[0], windows, colours, width)
        axes[-1].set_xlabel("time since start (s)")
        return to_svg(fig, f"Time line of {run.label}: {', '.join(panel.name for panel in stack)}")

    with drawing():
        return Plot(caption, draw(WIDE), draw(NARROW))


def _work(run: Run) -> list[Panel]:
    steps, found = run.steps, []
    for title, column in (("Loss (nats)", "loss"), ("Throughput (tokens/s)", "tokens_per_s")):
        if np.isfinite(steps[column]).any():
            found.append(Panel(title, [_line("training" if column == "loss" else "", steps["end_s"], steps[column], 0)]))
    evals = [(e.end_s, e.loss) for e in run.evals if np.isfinite(e.loss)]
    if evals and found:
        x, y = np.array(evals).T
        found[0].lines.append(Line("held-out", x, y, 1, dots=True))
    return found


def _queues(run: Run, colours: dict[str, int]) -> list[Panel]:
    """Return a panel per figure that an engine told of itself and that was ever more than nothing."""
    found = []
    for title, field, scale in ENGINE:
        said = {subject: (it["time_s"], it[field]) for subject, it in run.engines.items() if np.nansum(it[field])}
        found.append(Panel(title, [_line(name, x, y * scale, colours.get(name, 0)) for name, (x, y) in said.items()]))
    return [panel for panel in found if panel.lines]


def _machines(run: Run) -> dict[int, Telemetry]:
    """Return what was sampled on each node, by its rank."""
    return {node: telemetry for node, telemetry in {0: run.telemetry, **run.nodes}.items() if telemetry is not None}


def _machine(run: Run) -> list[Panel]:
    """Return a panel for everything that was measured at least once: of GPUs on each node, of the rest on the first."""
    machines, host = _machines(run), run.telemetry.host if run.telemetry else {}
    each = [_gpus(telemetry, node if len(machines) > 1 else None) for node, telemetry in machines.items()]
    found = [panel for same in zip(*each, strict=True) for panel in same]
    for title, fields, labels in HOST if host else ():
        lines = [
            _line(label, host["time_s"], host[field], i)
            for i, (field, label) in enumerate(zip(fields, labels, strict=True))
            if np.isfinite(host[field]).any()
        ]
        found.append(_scaled(title, lines, 0 if len(machines) > 1 else None))
    return [panel for panel in found if panel.lines]


def _gpus(telemetry: Telemetry, node: int | None) -> list[Panel]:
    """Return the same panels for whatever machine, without lines where nothing was measured."""
    found = []
    for title, field in GPU:
        lines = [_line(str(i), gpu["time_s"], gpu[field], i) for i, gpu in telemetry.gpus.items() if np.isfinite(gpu[field]).any()]
        found.append(_scaled(title, lines, node))
    found.append(_scaled(ALL_PIDS, _processes(telemetry), node))
    slowed = {i: gpu for i, gpu in telemetry.gpus.items() if np.nansum(gpu["slowed_pct"])}
    found.append(Panel(SLOWED, [_line(str(i), gpu["time_s"], gpu["slowed_pct"] / 100, i) for i, gpu in slowed.items()], node))
    for title, name in LINKS:
        curves = {i: links[name] for i, links in telemetry.links.items() if np.isfinite(links[name][1]).any()}
        found.append(_scaled(title, [_line(str(i), *curve, i) for i, curve in curves.items()], node))
    return found


def _processes(telemetry: Telemetry) -> list[Line]:
    """Return the processes that took most GPU memory; of many, those that shared a GPU: of one alone the GPU's own curve says as much."""
    known = telemetry.processes
    gpus = [index for index, _ in known]
    shared = {key: curve for key, curve in known.items() if gpus.count(key[0]) > 1 or len(known) <= MOST_PROCESSES}
    largest = sorted(shared, key=lambda key: -shared[key][1].max())[:MOST_PROCESSES]
    several = len({index for index, _ in shared}) > 1
    return [_line(f"{key[0]}: {key[1]}" if several else str(key[1]), *shared[key], n) for n, key in enumerate(sorted(largest))]


def _line(label: str, x: np.ndarray, y: np.ndarray, colour: int) -> Line:
    return Line(label, *decimate(x, y), colour)


def _scaled(title: str, lines: list[Line], node: int | None) -> Panel:
    """Put the byte unit that fits the largest value in the title's place for it."""
    if "{}" not in title or not lines:
        return Panel(title, lines, node)
    scale, unit = byte_unit(max(float(np.nanmax(line.y)) for line in lines))
    return Panel(title.format(unit), [Line(line.label, line.x, line.y / scale, line.colour) for line in lines], node)


def _panel(ax: Axes, panel: Panel) -> None:
    for line in panel.lines:
        colour, dash = SERIES[line.colour % 8], DASHES[line.colour % 4]
        if line.dots:
            ax.plot(line.x, line.y, "o", markersize=5.5, color=colour, markeredgecolor=PAPER, label=line.label, zorder=3)
        else:
            ax.plot(line.x, line.y, linewidth=1.3, color=colour, linestyle=dash, label=line.label, marker="." if len(line.x) == 1 else None)
    largest = max(float(np.nanmax(line.y)) for line in panel.lines)
    ax.locator_params(axis="y", nbins=3)
    if panel.title == SLOWED:
        ax.set_ylim(-0.08, 1.12)
        ax.set_yticks([0, 1], ["no", "yes"])
    elif panel.title in SHARES:
        ax.set_ylim(0, 104)
        ax.set_yticks([0, 50, 100])
    elif not panel.title.startswith("Loss"):
        ax.set_ylim(0, largest * 1.06 or 1)
    ax.set_title(panel.name)
    if len(panel.lines) > 1 or panel.title == SLOWED:
        room = ax.bbox.width - len(panel.name) * LETTER
        fits = sum(len(line.label) * LETTER + 28 for line in panel.lines) <= room
        ax.legend(
            loc="lower right",
            bbox_to_anchor=(1.005, 0.99),
            ncols=len(panel.lines) if fits else -(-len(panel.lines) // 2),
            labelspacing=0.2,
            borderpad=0.1,
            handlelength=1.3,
            columnspacing=0.8,
            handletextpad=0.4,
        )


def _xids(ax: Axes, xids: list[tuple[float, int]], named: bool, width: float) -> None:
    """Mark when the driver reported an error, and which where there is room; the notes above the figure say the GPU."""
    unit, free_from = (width - 64) / ax.get_xlim()[1], 0.0
    for at_s, xid in sorted(xids):
        ax.axvline(at_s, color=ALARM, linewidth=1, linestyle=(0, (2, 2)), zorder=2.5)
        if named and at_s * unit >= free_from and width - 64 - at_s * unit > LABEL:
            ax.text(at_s + 4 / unit, 0.07, f"XID {xid}", transform=ax.get_xaxis_transform(), fontsize=9, color=ALARM, zorder=4)
            free_from = at_s * unit + LABEL


def _xids_of(telemetry: Telemetry) -> list[tuple[float, int]]:
    return [found for health in telemetry.health.values() for found in health.xids[:MOST_XIDS]]


def _links_caption(machines: Collection[Telemetry]) -> str:
    """Say what kind of numbers the panels of links and processes show."""
    links = [curves for telemetry in machines for gpu in telemetry.links.values() for curves in gpu.items()]
    drawn = {name.partition("_")[0] for name, (_, rates) in links if np.isfinite(rates).any()}
    said = " PCIe: seen for 20 ms once a second." * ("pcie" in drawn) + f" NVLink: means of {LINKS_S:g} s." * ("nvlink" in drawn)
    return said + " Of processes, by their number, those that took most." * any(map(_processes, machines))


def _cells(ax: Axes, windows: list[tuple[CellKey, float, float]], colours: dict[str, int], width: float) -> None:
    """Draw which cell ran when: a row per engine, the load in each block that has room for it."""
    engines = list(dict.fromkeys(key.subject for key, _, _ in windows))
    unit = (width - 64) / ax.get_xlim()[1]
    for key, start, end in windows:
        row = engines.index(key.subject)
        # The line keeps a cell of a few milliseconds visible.
        ax.barh(row, end - start, left=start, height=0.74, color=SERIES[colours[key.subject] % 8], linewidth=1.2)
        if (end - start) * unit > 9 * len(key.load):
            ax.text((start + end) / 2, row, key.load, ha="center", va="center", fontsize=9, color=PAPER)
    ax.set_ylim(len(engines) - 0.5, -0.5)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.set_title("Cells by engine; numbers are concurrencies")
