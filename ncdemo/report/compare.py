"""Two subjects of benchmarks side by side: per metric the ratio, its confidence interval, and whether it is more than noise.

    compare(read_side(Path("runs/a"), "vllm"), read_side(Path("runs/a"), "sglang"))

Within one run the repeats are interleaved, so they are paired: the interval is Student's t over the logarithms of the ratios.
Two runs were not interleaved: Welch's t over the logarithms, and the caller is told that drift of the machine isn't ruled out.
What fails a fairness gate is refused, and so are sides whose answers differ (answers.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from ncdemo.report.answers import Agreement, Quality, agreement, quality, unlike
from ncdemo.report.arguments import Arguments, given
from ncdemo.report.fairness import MIN_REPEATS, flags, objectives_differ, refusal
from ncdemo.report.intervals import paired_interval, welch_interval
from ncdemo.report.measured import so_far
from ncdemo.report.show import said
from ncdemo.report.side import Side, read_side
from ncdemo.spec.base import SpecError
from ncdemo.spec.result_bench import Cell, SearchResult

__all__ = [
    "Agreement", "Arguments", "Difference", "Missing", "Quality", "Refused", "SameEndpoint", "Side",
    "Unfinished", "arguments", "compare", "heading", "read_side", "table", "unfinished",
]  # fmt: skip

HIGHER = ("output_tokens_per_s", "steady_output_tokens_per_s", "requests_per_s", "goodput_rps")
FROM_SCHEDULE = "ttft_from_schedule_s"
"""Of open loops alone: a closed loop has no schedule to be late for."""
LOWER = ("ttft_s", FROM_SCHEDULE, "tpot_s", "itl_s", "e2e_s")
FAIR = {
    "error": None,
    "failed": 0,
    "equal_output_tokens": None,
    "token_agreement": None,
    "exact_match_best": None,
    "client": None,
    "counted": None,
    "tokens_from_text": None,
}
"""A rate that was too much may well have failed; of it the gates alone are compared."""
PER_TOKEN = ("energy_j_per_token", "usd_per_mtok")


@dataclass(frozen=True)
class Difference:
    """One metric of one model and load: a / b."""

    model: str
    load: str
    metric: str
    better: str
    """Which ratio is good: higher or lower."""
    a: float
    b: float
    ratio: float
    low: float | None
    high: float | None
    """Interval of the ratio at 95 %; None below two repeats."""
    repeats: int

    @property
    def verdict(self) -> str:
        if self.repeats < MIN_REPEATS or self.low is None or self.high is None:
            return f"not established: {self.repeats} of at least {MIN_REPEATS} repeats"
        if self.low <= 1 <= self.high:
            return "no more than noise"
        return "a is better" if (self.ratio > 1) == (self.better == "higher") else "b is better"


@dataclass(frozen=True)
class Refused:
    """A model and load that can't be compared, and why."""

    model: str
    load: str
    why: str


@dataclass(frozen=True)
class Missing:
    """A metric that has no ratio, and why: often more decisive than one."""

    model: str
    load: str
    metric: str
    why: str


@dataclass(frozen=True)
class Unfinished:
    """A side whose run goes on, or was stopped or killed: what it finished is compared."""

    side: str
    """a or b."""
    run: str
    finished: int
    """Cells of the run, all subjects together."""
    planned: int | None
    """Cells that it was to have; None where only the run knows, as with a search."""

    @property
    def shown(self) -> str:
        return f"{self.side}: its run is unfinished, it has {so_far(self.finished, self.planned)}; these are compared."


@dataclass(frozen=True)
class SameEndpoint:
    """Two runs that asked one endpoint of others the same prompts."""

    url: str

    @property
    def shown(self) -> str:
        return f"Both asked {self.url} the same prompts: unless it was started anew in between, the later may have found them in its prefix cache."


def heading(a: Side, b: Side) -> list[Unfinished | Arguments | SameEndpoint]:
    """Return what is to be known before any figure is read."""
    asked = [{c.gates.prompt_hash for c in side.cells if c.gates and c.gates.prefix_cache == "distinct prompts"} for side in (a, b)]
    twice = a.run != b.run and a.url == b.url and bool(asked[0] & asked[1])
    return [*unfinished(a, b), *arguments(a, b), *([SameEndpoint(a.url)] if twice and a.url else [])]


def arguments(a: Side, b: Side) -> list[Arguments]:
    """Return what only one side's server was given."""
    return given(a.server_args, b.server_args)


Found = Difference | Missing | Refused | Agreement | Quality


def unfinished(a: Side, b: Side) -> list[Unfinished]:
    """Return the sides whose runs did not come to their end."""
    return [Unfinished(name, side.run, side.finished, side.planned) for name, side in (("a", a), ("b", b)) if not side.whole]


def compare(a: Side, b: Side) -> list[Found]:
    """Compare what both measured. Raise SpecError when they share no model and load."""
    settings = [s for s in dict.fromkeys((c.model, c.load) for c in a.cells) if any((c.model, c.load) == s for c in b.cells)]
    rates = _highest_rates(a, b)
    if not settings and not rates:
        raise SpecError("the two share no model and load; measure both with one spec")
    found: list[Found] = []
    starts = [side.answers(set(settings)) for side in (a, b)]
    distinct = min((n for n in (a.distinct, b.distinct) if n is not None), default=None)
    for model, load in settings:
        ours, theirs = ([c for c in side.cells if (c.model, c.load) == (model, load)] for side in (a, b))
        if why := refusal(ours, theirs):
            found.append(Refused(model, load, why))
            continue
        agreed = agreement(model, load, ours, *(start.get((model, load), {}) for start in starts))
        right = quality(model, load, ours, theirs, distinct)
        found += [agreed, *([right] if right else [])]
        if why := unlike(agreed, right):
            found.append(Refused(model, load, why))
        else:
            found += _differences(model, load, ours, theirs, paired=a.run == b.run)
    return found + rates


def table(a: Side, b: Side, found: Sequence[Found]) -> str:
    """Return the comparison as text."""
    lines = [f"a = {a.run} {a.subject}, b = {b.run} {b.subject}"]
    lines += [one.shown for one in heading(a, b)]
    if a.run != b.run:
        lines.append("Two runs, so their repeats were not interleaved: drift of the machine is not ruled out.")
    lines += [
        f"{name} differs: {' and '.join(one.about.get(name, 'not known') for one in (a, b))}"
        for name in dict.fromkeys((*a.about, *b.about))
        if a.about.get(name) != b.about.get(name) and (a.run != b.run)
    ]
    for (model, load), group in groupby(found, key=lambda one: (one.model, one.load)):
        lines.append(f"\n{model}, {said(load)}")
        for one in group:
            if isinstance(one, Refused):
                lines.append(f"  refused: {one.why}")
                continue
            if isinstance(one, Agreement | Quality):
                lines.append(f"  {one.shown}")
                continue
            if isinstance(one, Missing):
                lines.append(f"  {one.metric:26} {one.why}")
                continue
            interval = f"[{one.low:.3f}, {one.high:.3f}]" if one.low is not None and one.high is not None else "-"
            lines.append(f"  {one.metric:26} {one.a:12.5g} {one.b:12.5g}   a/b {one.ratio:.3f} {interval:18} {one.verdict}")
    return "\n".join(lines)


def _differences(model: str, load: str, ours: Sequence[Cell], theirs: Sequence[Cell], *, paired: bool) -> list[Found]:
    found: list[Found] = []
    for metric, better, value in _metrics():
        mine, others = ({c.repeat: v for c in cells if (v := value(c)) is not None} for cells in (ours, theirs))
        if not mine or not others:
            continue
        if metric == "goodput_rps" and (why := objectives_differ([*ours, *theirs])):
            found.append(Missing(model, load, metric, f"not compared: {why}"))
            continue
        # None of something has no ratio, and leaving such repeats out would flatter.
        if none := [f"{name} had none in {n} of {len(v)} repeats" for name, v in (("a", mine), ("b", others)) if (n := _zeros(v))]:
            found.append(Missing(model, load, metric, ", ".join(none)))
            continue
        x, y = [math.log(v) for v in mine.values()], [math.log(v) for v in others.values()]
        if paired:
            both = sorted(mine.keys() & others.keys())
            x, y = [math.log(mine[r]) for r in both], [math.log(others[r]) for r in both]
        if not x:
            continue
        middle, half = paired_interval(x, y) if paired else welch_interval(x, y)
        low, high = (None, None) if half is None else (math.exp(middle - half), math.exp(middle + half))
        a, b = math.exp(fmean(x)), math.exp(fmean(y))
        found.append(Difference(model, load, metric, better, a, b, math.exp(middle), low, high, min(len(x), len(y))))
    return found


def _zeros(values: dict[int, float]) -> int:
    return sum(value <= 0 for value in values.values())


def _highest_rates(a: Side, b: Side) -> list[Found]:
    """Compare where searches for the highest rate ended. The interval is that of their two brackets: one search is no repeat."""
    found: list[Found] = []
    pairs = [(x, y) for x in a.searches for y in b.searches if (x.model, x.lengths) == (y.model, y.lengths)]
    for x, y in pairs:
        load, metric = ", ".join(filter(None, ("search", x.lengths))), "max_goodput_rate_rps"
        ours, theirs = _searched(a, x), _searched(b, y)
        common = {c.rate_rps or 0.0 for c in ours} & {c.rate_rps or 0.0 for c in theirs}
        best = [c for cells, one in ((ours, x), (theirs, y)) for c in cells if c.rate_rps == one.max_goodput_rate_rps]
        why = (
            next((f"at the highest rate: {flag}" for c in best for flag in flags(c)), None)
            or (None if common else "no rate was tried by both, so equal prompts aren't proven; search from one start_rps")
            or (f"attainment differs: {x.attainment} and {y.attainment}" if x.attainment != y.attainment else None)
            or objectives_differ([*ours, *theirs])
            or refusal(*_at(min(common), ours, theirs))
        )
        if why:
            found.append(Refused(x.model, load, why))
            continue
        good = [one.max_goodput_rate_rps for one in (x, y)]
        if good[0] is None or good[1] is None:
            none = ", ".join(f"{name} met the objectives at no rate" for name, rate in zip("ab", good, strict=True) if rate is None)
            found.append(Missing(x.model, load, metric, none))
            continue
        low = None if y.above_rps is None else good[0] / y.above_rps
        high = None if x.above_rps is None else x.above_rps / good[1]
        found.append(Difference(x.model, load, metric, "higher", good[0], good[1], good[0] / good[1], low, high, 1))
    return found


def _at(rate_rps: float, ours: Sequence[Cell], theirs: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Return the cells of a rate, with nothing but their gates to refuse them by."""
    a, b = ([c.model_copy(update=FAIR) for c in cells if c.rate_rps == rate_rps] for cells in (ours, theirs))
    return a, b


def _searched(side: Side, search: SearchResult) -> list[Cell]:
    return [c for c in side.cells if c.searched and (c.model, c.lengths) == (search.model, search.lengths)]


def _figure(name: str) -> Callable[[Cell], float | None]:
    return lambda cell: getattr(cell, name)


def _metrics() -> list[tuple[str, str, Callable[[Cell], float | None]]]:
    """Return (name, which is better, how it is read) for each metric; percentiles only where the samples bound them."""
    found: list[tuple[str, str, Callable[[Cell], float | None]]] = [(m, "higher", _figure(m)) for m in HIGHER]
    found += [(f"{metric} {point}", "lower", _percentile(metric, point)) for metric in LOWER for point in ("p50", "p90", "p99")]
    return [*found, *((m, "lower", _figure(m)) for m in PER_TOKEN)]


def _percentile(metric: str, point: str) -> Callable[[Cell], float | None]:
    def read(cell: Cell) -> float | None:
        found = None if metric == FROM_SCHEDULE and cell.concurrency is not None else getattr(cell, metric)
        return getattr(found, point) if found is not None else None

    return read
