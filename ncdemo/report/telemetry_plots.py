"""What the machine did meanwhile: stacked panels over one time axis, with loss and throughput or the bench's cells on top."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from ncdemo.report.figure import ALARM, DASHES, NARROW, PAPER, SERIES, WIDE, Plot, drawing, panels, to_svg
from ncdemo.report.gpu_curves import LINKS_S
from ncdemo.report.gpu_health import MOST_XIDS
from ncdemo.report.machine_panels import FEW, SLOWED, Line, Panel, line, machine_panels, machines, processes
from ncdemo.report.read import Run
from ncdemo.report.requests import CellKey
from ncdemo.report.samples import Telemetry
from ncdemo.report.show import duration

HEIGHT, GAP = 66, 30
RANGE = 0.22
"""Opacity of what lies between the lowest and the highest."""
ENGINE = (
    ("Requests waiting, as the engine says", "waiting", 1),
    ("Requests running, as the engine says", "running", 1),
    ("Key-value cache used (%)", "kv_cache_used", 100),
)
SHARES = ("Key-value cache used (%)", "CPU busy, all cores (%)", "GPU utilisation (%)")
LETTER = 5.8
"""Mean width of one, in a title or a legend."""
Xid = tuple[float, str]
"""When, and in words which."""


def telemetry_plot(run: Run, colours: dict[str, int]) -> Plot | None:
    """Draw one run's time line, for wide and for narrow pages; None when there is nothing over time."""
    stack = _work(run) + _queues(run, colours) + machine_panels(run)
    windows = [(key, cell.start_s, cell.end_s) for key, cell in run.cells.items() if cell.start_s is not None and cell.end_s is not None]
    if not stack and not windows:
        return None
    ends = [float(np.nanmax(one.x)) for panel in stack for one in panel.lines if len(one.x)] + [end for _, _, end in windows]
    caption = "Seconds since the run's start."
    caption += " Shaded: the time in which each cell was measured." if windows else ""
    known = machines(run)
    caption += " Dashed: an XID." if _xids_of(known) else ""
    caption += _range_caption(stack, len(known)) + _links_caption(known)

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
                _xids(ax, _xids_of(known if panel.node is None else {panel.node: known[panel.node]}), named=panel is first, width=width)
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
            found.append(Panel(title, [line("training" if column == "loss" else "", steps["end_s"], steps[column], 0)]))
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
        found.append(Panel(title, [line(name, x, y * scale, colours.get(name, 0)) for name, (x, y) in said.items()]))
    return [panel for panel in found if panel.lines]


def _panel(ax: Axes, panel: Panel) -> None:
    for one in panel.lines:
        colour, dash = SERIES[one.colour % 8], DASHES[one.colour % 4]
        if one.low is not None and one.high is not None:
            ax.fill_between(one.x, one.low, one.high, color=colour, alpha=RANGE, linewidth=0)
        if one.dots:
            ax.plot(one.x, one.y, "o", markersize=5.5, color=colour, markeredgecolor=PAPER, label=one.label, zorder=3)
        else:
            ax.plot(one.x, one.y, linewidth=1.3, color=colour, linestyle=dash, label=one.label, marker="." if len(one.x) == 1 else None)
    largest = max(one.top for one in panel.lines)
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
        fits = sum(len(one.label) * LETTER + 28 for one in panel.lines) <= room
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


def _xids(ax: Axes, xids: list[Xid], named: bool, width: float) -> None:
    """Mark when the driver reported an error, and which where there is room; the notes above the figure say the GPU."""
    unit, free_from = (width - 64) / ax.get_xlim()[1], 0.0
    for at_s, words in sorted(xids):
        ax.axvline(at_s, color=ALARM, linewidth=1, linestyle=(0, (2, 2)), zorder=2.5)
        room = len(words) * LETTER + 15
        if named and at_s * unit >= free_from and width - 64 - at_s * unit > room:
            ax.text(at_s + 4 / unit, 0.07, words, transform=ax.get_xaxis_transform(), fontsize=9, color=ALARM, zorder=4)
            free_from = at_s * unit + room


def _xids_of(known: Mapping[int, Telemetry]) -> list[Xid]:
    """Return those of one node, or of several with the node."""
    return [
        (at_s, f"XID {xid}, node {node}" if len(known) > 1 else f"XID {xid}")
        for node, telemetry in known.items()
        for health in telemetry.health.values()
        for at_s, xid in health.xids[:MOST_XIDS]
    ]


def _range_caption(stack: list[Panel], nodes: int) -> str:
    """Say what is drawn of nodes that are too many for a line each."""
    ranges = [one for panel in stack for one in panel.lines if one.low is not None and len(one.x) > 1]
    if not ranges:
        return ""
    each = duration(float(np.median([one.x[1] - one.x[0] for one in ranges])))
    return f" Of {nodes} nodes, or all their GPUs: the mean, and shaded from the lowest to the highest, each by its means of {each}."


def _links_caption(known: Mapping[int, Telemetry]) -> str:
    """Say what kind of numbers the panels of links and processes show."""
    links = [curves for telemetry in known.values() for gpu in telemetry.links.values() for curves in gpu.items()]
    drawn = {name.partition("_")[0] for name, (_, rates) in links if np.isfinite(rates).any()}
    said = " PCIe: seen for 20 ms once a second." * ("pcie" in drawn) + f" NVLink: means of {LINKS_S:g} s." * ("nvlink" in drawn)
    shown = len(known) <= FEW and any(map(processes, known.values()))
    return said + " Of processes, by their number, those that took most." * shown


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
