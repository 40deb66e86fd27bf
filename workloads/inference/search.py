"""The highest rate that meets the objectives: bracket it by doubling or halving, then halve the bracket. Few runs, each a cell.

hunt = Hunt(spec.search)
while (rate := hunt.next_rate()) is not None:
    hunt.tell(rate, attained_low(cell, spec.search.confidence))
hunt.best       # requests per second, None: not even the lowest tried

A rate passes when the Wilson lower bound of its share of good requests reaches `attainment`, so a short cell can't pass by luck.
"""

import math

from ncdemo.spec.result_bench import SearchResult
from ncdemo.spec.sweep import PlannedCell
from ncdemo.spec.traffic import Search

LOWEST_RPS = 1e-3
"""Below it the answer is: none."""


class Hunt:
    """One search. The same answers give the same rates, so a search that was killed goes on by being told what is known."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._good: float | None = None
        self._bad: float | None = None
        self._runs = 0

    @property
    def best(self) -> float | None:
        """The highest rate that passed."""
        return self._good

    @property
    def bracketed(self) -> bool:
        """Whether a higher rate failed and the two are within the tolerance."""
        return self._good is not None and self._bad is not None and self._bad <= self._good * (1 + self._search.tolerance)

    def next_rate(self) -> float | None:
        """Return the rate to try now; None when there is nothing left to try."""
        if self._runs >= self._search.max_runs or self.bracketed:
            return None
        if self._good is None and self._bad is None:
            return self._search.start_rps
        if self._good is None:
            assert self._bad is not None
            return self._bad / 2 if self._bad / 2 >= LOWEST_RPS else None
        if self._bad is None:
            return self._good * 2
        return _round(math.sqrt(self._good * self._bad))

    def result(self, plan: PlannedCell) -> SearchResult:
        """Return where it ended."""
        if self.bracketed:
            reason = f"bracketed within {self._search.tolerance:.0%}"
        elif self._runs >= self._search.max_runs:
            reason = f"max_runs = {self._search.max_runs} reached"
        elif self._good is None:
            reason = f"no rate down to {self._bad:g} req/s met the objectives"
        else:
            reason = "stopped on the way"
        return SearchResult(
            engine=plan.subject.engine, model=plan.subject.model.shown, variant=plan.subject.variant,
            lengths=plan.lengths.shown if plan.lengths else None, max_goodput_rate_rps=self._good, above_rps=self._bad,
            runs=self._runs, reason=reason,
        )  # fmt: skip

    def tell(self, rate_rps: float, attainment_low: float | None) -> None:
        """Take what a cell came to; one that could not be measured did not pass."""
        self._runs += 1
        if attainment_low is not None and attainment_low >= self._search.attainment:
            self._good = max(rate_rps, self._good or 0.0)
        else:
            self._bad = min(rate_rps, self._bad if self._bad is not None else rate_rps)


def _round(rate: float) -> float:
    """Four digits: a rate stands in a cell's name."""
    return float(f"{rate:.4g}")
