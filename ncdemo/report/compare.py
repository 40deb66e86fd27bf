"""Two subjects of benchmarks side by side: per metric the ratio, its confidence interval, and whether it is more than noise.

    compare(read_side(Path("runs/a"), "vllm"), read_side(Path("runs/a"), "sglang"))

Within one run the repeats are interleaved, so they are paired: the interval is Student's t over the logarithms of the ratios.
Two runs were not interleaved: Welch's t over the logarithms, and the caller is told that drift of the machine isn't ruled out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, variance

from ncdemo.report.fairness import CONFIDENCE, MIN_REPEATS, flags
from ncdemo.report.measured import read_measured
from ncdemo.report.show import said
from ncdemo.spec.base import SpecError
from ncdemo.spec.result_bench import Cell, Gates

HIGHER = ("output_tokens_per_s", "steady_output_tokens_per_s", "requests_per_s", "goodput_rps")
FROM_SCHEDULE = "ttft_from_schedule_s"
"""Of open loops alone: a closed loop has no schedule to be late for."""
LOWER = ("ttft_s", FROM_SCHEDULE, "tpot_s", "itl_s", "e2e_s")
PER_TOKEN = ("energy_j_per_token", "usd_per_mtok")


@dataclass(frozen=True)
class Side:
    """One subject's cells in one run."""

    run: str
    subject: str
    cells: tuple[Cell, ...]
    whole: bool = True
    """False: its run goes on or was killed; these are the cells that it finished."""


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


def read_side(folder: Path, subject: str | None) -> Side:
    """Return a subject of a run. Raise SpecError where there is none, or several and none was named."""
    measured = read_measured(folder)
    subjects = list(dict.fromkeys(c.subject for c in measured.cells))
    if subject is None and len(subjects) > 1:
        raise SpecError(f"{folder}: holds {', '.join(subjects)}; say which as RUN:SUBJECT, e.g. {folder}:{subjects[0]}")
    chosen = subject or subjects[0]
    if chosen not in subjects:
        raise SpecError(f"{folder}:{chosen}: no such subject; give one of: {', '.join(subjects)}")
    return Side(measured.record.run_id, chosen, tuple(c for c in measured.cells if c.subject == chosen), measured.whole)


def compare(a: Side, b: Side) -> list[Difference | Refused]:
    """Compare what both measured. Raise SpecError when they share no model and load."""
    settings = [s for s in dict.fromkeys((c.model, c.load) for c in a.cells) if any((c.model, c.load) == s for c in b.cells)]
    if not settings:
        raise SpecError("the two share no model and load; measure both with one spec")
    found: list[Difference | Refused] = []
    for model, load in settings:
        ours, theirs = ([c for c in side.cells if (c.model, c.load) == (model, load)] for side in (a, b))
        if why := refusal(ours, theirs):
            found.append(Refused(model, load, why))
        else:
            found += _differences(model, load, ours, theirs, paired=a.run == b.run)
    return found


def table(a: Side, b: Side, found: Sequence[Difference | Refused]) -> str:
    """Return the comparison as text."""
    lines = [f"a = {a.run} {a.subject}, b = {b.run} {b.subject}"]
    lines += [
        f"{name}: its run has no result yet, or was killed; these are its finished cells."
        for name, s in (("a", a), ("b", b))
        if not s.whole
    ]
    if a.run != b.run:
        lines.append("Two runs, so their repeats were not interleaved: drift of the machine is not ruled out.")
    for (model, load), group in groupby(found, key=lambda one: (one.model, one.load)):
        lines.append(f"\n{model}, {said(load)}")
        for one in group:
            if isinstance(one, Refused):
                lines.append(f"  refused: {one.why}")
                continue
            interval = f"[{one.low:.3f}, {one.high:.3f}]" if one.low is not None and one.high is not None else "-"
            lines.append(f"  {one.metric:26} {one.a:12.5g} {one.b:12.5g}   a/b {one.ratio:.3f} {interval:18} {one.verdict}")
    return "\n".join(lines)


def refusal(ours: Sequence[Cell], theirs: Sequence[Cell]) -> str | None:
    """Return why two groups of cells can't be compared; None when they can."""
    for name, cells in (("a", ours), ("b", theirs)):
        for cell in cells:
            if found := flags(cell):
                return f"{name}, repeat {cell.repeat}: {found[0]}"
    gates = [c.gates for c in (*ours, *theirs)]
    if None in gates:
        return "a cell has no record of its fairness gates"
    for field in Gates.model_fields:
        values = list(dict.fromkeys(value for g in gates if (value := getattr(g, field)) is not None))
        if field == "prefix_cache":  # off and emptied come to the same
            values = [] if "unknown" not in values else values
        if len(values) > 1:
            return f"{field} differs: {' and '.join(map(str, values))}"
    return None


def _differences(model: str, load: str, ours: Sequence[Cell], theirs: Sequence[Cell], *, paired: bool) -> list[Difference]:
    found = []
    for metric, better, value in _metrics():
        mine, others = ({c.repeat: v for c in cells if (v := value(c)) is not None} for cells in (ours, theirs))
        if min([*mine.values(), *others.values()], default=0) <= 0:  # a goodput of none has no ratio, and leaving it out would flatter
            continue
        x, y = [math.log(v) for v in mine.values()], [math.log(v) for v in others.values()]
        if paired:
            both = sorted(mine.keys() & others.keys())
            x, y = [math.log(mine[r]) for r in both], [math.log(others[r]) for r in both]
        if not x or not y:
            continue
        middle, half = paired_interval(x, y) if paired else welch_interval(x, y)
        low, high = (None, None) if half is None else (math.exp(middle - half), math.exp(middle + half))
        a, b = math.exp(fmean(x)), math.exp(fmean(y))
        found.append(Difference(model, load, metric, better, a, b, math.exp(middle), low, high, min(len(x), len(y))))
    return found


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


def paired_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of x - y and half of its 95 % interval; None for one pair."""
    gaps = [a - b for a, b in zip(x, y, strict=True)]
    if len(gaps) < 2:
        return fmean(gaps), None
    return fmean(gaps), student_t(len(gaps) - 1) * math.sqrt(variance(gaps) / len(gaps))


def welch_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float | None]:
    """The same of two independent samples of unequal variance."""
    middle = fmean(x) - fmean(y)
    if min(len(x), len(y)) < 2:
        return middle, None
    a, b = variance(x) / len(x), variance(y) / len(y)
    if a + b == 0:
        return middle, 0.0
    freedom = (a + b) ** 2 / (a * a / (len(x) - 1) + b * b / (len(y) - 1))
    return middle, student_t(freedom) * math.sqrt(a + b)


def student_t(freedom: float, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t, by integrating its density (Simpson's rule) and bisection."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def inside(t: float, n: int = 2000) -> float:
        """Return P(-t < T < t). With x = tan(u) the density has no long tail."""
        end = math.atan(t)
        values: list[float] = [
            (1 + math.tan(end * i / n) ** 2 / freedom) ** (-(freedom + 1) / 2) / math.cos(end * i / n) ** 2 for i in range(n + 1)
        ]
        return 2 * scale * end / n / 3 * (values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2]))

    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return (low + high) / 2
