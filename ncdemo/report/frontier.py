"""What a load buys, as points: throughput against latency, and which points are on the Pareto frontier.

A point is one subject at one load, the median of its repeats. It is on the frontier when no other point of the same model and
lengths has both more output tokens/s and a lower latency. Cells that fail a fairness gate are on no frontier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from ncdemo.report.fairness import flags
from ncdemo.spec.result_bench import Cell


@dataclass(frozen=True)
class Point:
    """Medians over the repeats of one subject at one load."""

    subject: str
    load: str
    latency_s: float
    output_tokens_per_s: float
    flagged: bool


def points(cells: Sequence[Cell]) -> list[Point]:
    """Return what can be drawn: cells whose median latency and throughput were measured."""
    found = []
    for subject, load in dict.fromkeys((c.subject, c.load) for c in cells):
        group = [c for c in cells if (c.subject, c.load) == (subject, load)]
        latencies = [c.e2e_s.p50 for c in group if c.e2e_s and c.e2e_s.p50 is not None]
        speeds = [c.output_tokens_per_s for c in group if c.output_tokens_per_s is not None]
        if latencies and speeds:
            found.append(Point(subject, load, median(latencies), median(speeds), any(flags(c) for c in group)))
    return found


def pareto(found: Sequence[Point]) -> list[Point]:
    """Return the points that no other dominates, by latency; those that fail a gate take no part."""
    fair = [p for p in found if not p.flagged]
    return sorted((p for p in fair if not any(_dominates(other, p) for other in fair)), key=lambda p: p.latency_s)


def alike(cells: Sequence[Cell]) -> list[tuple[tuple[str, str | None], list[Cell]]]:
    """Return cells by what one frontier is of: model and lengths."""
    ordered = sorted(cells, key=lambda c: (c.model, c.lengths or ""))
    return [(key, list(group)) for key, group in groupby(ordered, key=lambda c: (c.model, c.lengths))]


def on_frontier(cells: Sequence[Cell]) -> dict[tuple[str, str | None, str, str], bool]:
    """Return, by model, lengths, subject and load, whether it is on the frontier; what is no point (see `points`) is left out."""
    found: dict[tuple[str, str | None, str, str], bool] = {}
    for (model, lengths), mine in alike(cells):
        drawn = points(mine)
        best = pareto(drawn)
        found |= {(model, lengths, p.subject, p.load): p in best for p in drawn}
    return found


def _dominates(a: Point, b: Point) -> bool:
    no_worse = a.latency_s <= b.latency_s and a.output_tokens_per_s >= b.output_tokens_per_s
    return no_worse and (a.latency_s, a.output_tokens_per_s) != (b.latency_s, b.output_tokens_per_s)
