"""Engines of one run against the first of them, as the page shows it: output tokens/s, paired by repeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ncdemo.report.answers import quality
from ncdemo.report.fairness import MIN_REPEATS, interval, refusal
from ncdemo.spec.result_bench import Cell


@dataclass(frozen=True)
class Comparison:
    """Output tokens/s of `engine` / that of `base`, paired by repeat."""

    model: str
    load: str
    engine: str
    base: str
    repeats: int
    ratio: float | None
    """Median of the paired ratios."""
    low: float | None
    high: float | None
    refused: str | None
    """Why the two can't be compared, as `ncdemo bench compare` says it."""

    @property
    def verdict(self) -> str:
        if self.refused:
            return f"not comparable: {self.refused}"
        if self.ratio is None:
            return "not measured in both"
        if self.low is None or self.high is None:
            return f"not established: {self.repeats} of at least {MIN_REPEATS} repeats"
        return "no difference shown" if self.low <= 1 <= self.high else "established"


def compare(cells: Sequence[Cell], distinct: int | None = None) -> list[Comparison]:
    """Compare every engine with the first one of the same model and load. distinct: prompts of a cell that differ, where known."""
    found = []
    for model, load in dict.fromkeys((c.model, c.load) for c in cells):
        group = [c for c in cells if (c.model, c.load) == (model, load)]
        base, *others = dict.fromkeys(c.subject for c in group)
        found += [_pair(group, model, load, engine, base, distinct) for engine in others]
    return found


def _pair(group: list[Cell], model: str, load: str, engine: str, base: str, distinct: int | None) -> Comparison:
    speed = {(c.subject, c.repeat): c.output_tokens_per_s for c in group}
    repeats = sorted({c.repeat for c in group})
    both = [(speed.get((engine, r)), speed.get((base, r))) for r in repeats]
    ratios = sorted(mine / theirs for mine, theirs in both if mine and theirs)
    low, high = interval(ratios)
    ours, theirs = ([c for c in group if c.subject == subject] for subject in (engine, base))
    right = quality(model, load, ours, theirs, distinct)
    refused = refusal(ours, theirs, (engine, base)) or (right.told((engine, base)) if right and right.worse else None)
    return Comparison(model, load, engine, base, len(ratios), median(ratios) if ratios else None, low, high, refused)
