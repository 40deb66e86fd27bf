"""What a load buys: throughput against latency with the Pareto frontier, and goodput against the rate that was offered.

frontier.py says what a point is and which are on the frontier. Cells that fail a fairness gate are drawn as crosses.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from ncdemo.report.figure import DASHES, INK, MUTED, NARROW, SERIES, Plot, drawing, panels, to_svg
from ncdemo.report.frontier import Point, alike, pareto, points
from ncdemo.report.show import short
from ncdemo.spec.result_bench import Cell, SearchResult


def frontier_plots(cells: Sequence[Cell], searches: Sequence[SearchResult], colours: dict[str, int]) -> list[Plot]:
    """Draw both figures per model and lengths, where there are at least two loads to draw."""
    plots = []
    with drawing():
        for (model, lengths), mine in alike(cells):
            what = ", ".join(filter(None, (model, lengths)))
            found = points(mine)
            if len({p.load for p in found}) > 1:
                caption = (
                    f"{what}: throughput against the median end-to-end latency, one point per load. "
                    "Filled: on the Pareto frontier of all engines. Lines: each engine's own frontier."
                )
                plots.append(Plot(caption, _frontier(found, what, colours)))
            open_loops = [c for c in mine if c.rate_rps is not None and c.goodput_rps is not None and not c.load.startswith("trace")]
            if len({c.load for c in open_loops}) > 1:
                best = [s for s in searches if (s.model, s.lengths) == (model, lengths)]
                caption = f"{what}: requests per second that met every objective against those sent. Dotted: every request good."
                if any(s.max_goodput_rate_rps for s in best):
                    caption += " Vertical: the highest rate that a search found good."
                plots.append(Plot(caption, _goodput(open_loops, best, what, colours)))
    return plots


def _frontier(found: Sequence[Point], what: str, colours: dict[str, int]) -> str:
    fig, (ax,) = panels(1, NARROW, 245)
    best = set(pareto(found))
    for subject in dict.fromkeys(p.subject for p in found):
        mine = [p for p in found if p.subject == subject]
        index = colours[subject]
        colour = SERIES[index % 8]
        line = pareto(mine)
        ax.plot([p.latency_s * 1e3 for p in line], [p.output_tokens_per_s for p in line], color=colour, linestyle=DASHES[index % 4])
        for p in mine:
            style: dict[str, Any] = {"marker": "x"} if p.flagged else {"marker": "o", "markerfacecolor": colour if p in best else "none"}
            ax.plot(p.latency_s * 1e3, p.output_tokens_per_s, markersize=6, markeredgecolor=colour, linestyle="none", **style)
            ax.annotate(
                short(p.load), (p.latency_s * 1e3, p.output_tokens_per_s), (5, 5), textcoords="offset points", color=MUTED, fontsize=8.5
            )
    _axes(ax, "end-to-end latency p50 (ms)", "Output tokens/s")
    return to_svg(fig, f"Output tokens per second against median end-to-end latency of {what}, with the Pareto frontier")


def _goodput(cells: Sequence[Cell], best: Sequence[SearchResult], what: str, colours: dict[str, int]) -> str:
    fig, (ax,) = panels(1, NARROW, 245)
    top = max(c.rate_rps or 0 for c in cells)
    ax.plot([0, top], [0, top], color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    for subject in dict.fromkeys(c.subject for c in cells):
        colour, dash = SERIES[colours[subject] % 8], DASHES[colours[subject] % 4]
        rates = sorted({c.rate_rps for c in cells if c.subject == subject and c.rate_rps is not None})
        good = [
            [c.goodput_rps for c in cells if (c.subject, c.rate_rps) == (subject, rate) and c.goodput_rps is not None] for rate in rates
        ]
        ax.plot(rates, [median(one) if one else math.nan for one in good], "o", linestyle=dash, color=colour, markersize=4.6)
        for search in best:
            if search.subject == subject and search.max_goodput_rate_rps:
                ax.axvline(search.max_goodput_rate_rps, color=colour, linewidth=0.9, linestyle=dash)
    _axes(ax, "requests/s sent", "Goodput (requests/s)")
    return to_svg(fig, f"Goodput of {what} against the rate that was sent")


def _axes(ax: Axes, x: str, y: str) -> None:
    ax.set_xlim(0, ax.get_xlim()[1] * 1.05)
    ax.set_ylim(0, ax.get_ylim()[1] * 1.05)
    ax.set_xlabel(x)
    ax.set_title(y)
