"""What the benchmark found: output tokens/s with every repeat shown, and the distribution of every latency."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator

from ncdemo.report.columns import ecdf
from ncdemo.report.fairness import flags
from ncdemo.report.figure import DASHES, INK, MUTED, NARROW, PAPER, SERIES, WIDE, Plot, drawing, panels, to_svg
from ncdemo.report.read import Run
from ncdemo.report.requests import METRICS
from ncdemo.report.show import said, short
from ncdemo.spec.result_bench import Cell

NAMES = {"ttft_s": "TTFT (ms)", "tpot_s": "TPOT (ms)", "itl_s": "ITL (ms)", "e2e_s": "End to end (ms)"}


def throughput_plots(run: Run, colours: dict[str, int]) -> list[Plot]:
    """Draw throughput per model and lengths."""
    cells = run.measured
    plots = []
    with drawing():
        for model, lengths in dict.fromkeys((c.model, c.lengths) for c in cells):
            mine = [c for c in cells if (c.model, c.lengths) == (model, lengths)]
            what = ", ".join(filter(None, (model, lengths)))
            caption = f"{what}: bar = median over repeats, dots = each repeat. Hatched: a cell fails a fairness gate."
            plots.append(Plot(caption, _throughput(mine, what, colours, WIDE, 190), _throughput(mine, what, colours, NARROW, 245)))
    return plots


def latency_plots(run: Run, colours: dict[str, int]) -> list[Plot]:
    """Draw one figure of four latencies per model and load."""
    plots = []
    with drawing():
        limits = _limits(run)
        for model, load in dict.fromkeys((key.model, key.load) for key in run.cells):
            open_loop = not short(load).isdigit()
            due = " TTFT counts from when a request was due." if open_loop else ""
            caption = f"{model}, {said(load)}: share of requests (ITL: of tokens) at or below, in %; all repeats pooled.{due}"
            plots.append(Plot(caption, _latencies(run, model, load, colours, limits)))
    return plots


def _throughput(cells: list[Cell], what: str, colours: dict[str, int], width: float, height: float) -> str:
    fig, (ax,) = panels(1, width, height)
    engines = list(dict.fromkeys(c.subject for c in cells))
    loads = list(dict.fromkeys(c.load for c in cells))
    share = 0.8 / len(engines)
    for i, engine in enumerate(engines):
        for x, load in enumerate(loads):
            group = [c for c in cells if (c.subject, c.load) == (engine, load)]
            if group:
                _bar(ax, x + (i - (len(engines) - 1) / 2) * share, share, group, SERIES[colours[engine] % 8])
    upright = len(loads) * len(max(map(short, loads), key=len)) * 8 > width
    ax.set_xticks(range(len(loads)), [short(load) for load in loads], rotation=90 if upright else 0)
    ax.set_xlim(-0.6, len(loads) - 0.4)
    ax.set_ylim(0, max(ax.get_ylim()[1] * 1.08, 1e-9))
    ax.grid(axis="x", visible=False)
    ax.set_title("Output tokens/s")
    closed = all(short(load).isdigit() for load in loads)
    if not upright:
        ax.set_xlabel("concurrency (requests in flight)" if closed else "load: requests in flight, or sent per second (/s)")
    return to_svg(fig, f"Output tokens per second of {', '.join(engines)} with {what} by load")


def _bar(ax: Axes, x: float, width: float, group: list[Cell], colour: str) -> None:
    values = [c.output_tokens_per_s for c in group if c.output_tokens_per_s is not None]
    if not values:
        ax.text(x, 0, "n/a", ha="center", va="bottom", color=MUTED, fontsize=9.5)
        return
    flagged = any(flags(c) for c in group)
    hatch = {"hatch": "////", "facecolor": "none", "alpha": 0.8} if flagged else {"facecolor": colour}
    ax.bar(x, np.median(values), width * 0.88, edgecolor=colour, linewidth=1, **hatch)
    spread = (np.arange(len(values)) - (len(values) - 1) / 2) * width * 0.55 / max(len(values) - 1, 1)
    ax.plot(x + spread, values, "o", markersize=4.6, color=INK, markeredgecolor=PAPER, markeredgewidth=0.9, zorder=3)


def _limits(run: Run) -> dict[str, tuple[float, float]]:
    """Return the range of each latency over all cells, in ms: figures of different concurrency share their axes."""
    found = {}
    for metric in METRICS:
        values = [v for cell in run.cells.values() if (v := getattr(cell, metric))]
        if values:
            found[metric] = (min(map(min, values)) * 1e3, max(map(max, values)) * 1e3)
    return found


def _latencies(run: Run, model: str, load: str, colours: dict[str, int], limits: dict[str, tuple[float, float]]) -> str:
    fig, axes = panels(4, NARROW, 98, gap=46, columns=2, left=34, bottom=24)
    for ax, metric in zip(axes, METRICS, strict=True):
        for engine in dict.fromkeys(key.subject for key in run.cells):
            pooled = [getattr(cell, metric) for key, cell in run.cells.items() if key[:3] == (engine, model, load)]
            values = np.concatenate([np.asarray(v) for v in pooled]) if pooled else np.empty(0)
            if len(values):
                x, y = ecdf(values * 1e3)
                index = colours[engine]
                x, y = np.insert(x, 0, x[0]), np.insert(y, 0, 0.0)
                ax.plot(x, y * 100, drawstyle="steps-post", color=SERIES[index % 8], linestyle=DASHES[index % 4])
        if not ax.lines:
            ax.text(0.5, 0.5, "not measured", ha="center", va="center", transform=ax.transAxes, color=MUTED)
            ax.set_xticks([])
        else:
            _scale(ax, *limits[metric])
        ax.set_ylim(0, 103)
        ax.yaxis.set_major_locator(FixedLocator([0, 50, 100]))
        ax.set_title(NAMES[metric])
    return to_svg(fig, f"Latency distributions of {model}, {said(load)}: percent of requests at or below a latency")


def _scale(ax: Axes, low: float, high: float) -> None:
    """Use a log axis for latencies over more than a decade, which engines of different kinds have."""
    if low > 0 and high / low > 10:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.15, high * 1.15)
        decades = np.log10(high / low)
        subs = (1, 2, 5) if decades < 1.5 and low > 0.1 else (1, 3) if decades < 2 else (1,)
        ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
        ax.xaxis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=40))
        ax.xaxis.set_major_formatter(ax.yaxis.get_major_formatter())
        ax.xaxis.set_minor_formatter("")
    else:
        pad = (high - low or high or 1) * 0.05
        ax.set_xlim(low - pad, high + pad)
        ax.locator_params(axis="x", nbins=4)
