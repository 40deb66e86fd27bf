"""The highest rate that meets the objectives: bracket it by doubling or halving, then halve the bracket. Few runs, each a cell.

hunt = pursue(spec.search, cell_at)     # cell_at(rate): the cell that the ledger has of this rate, else measured now
hunt.best       # requests per second, None: not even the lowest tried

A rate passes when the Wilson lower bound of its share of good requests reaches `attainment`, so that few requests can't pass by luck,
and when answers came as fast as requests were sent, so that a burst can't pass which an engine's batch or queue takes in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ncdemo.spec.result_bench import Cell, SearchResult
from ncdemo.spec.sweep import PlannedCell
from ncdemo.spec.traffic import Search
from workloads.inference.load import failures
from workloads.inference.metrics import attained_low

LOWEST_RPS = 1e-3
"""Below it the answer is: none."""
LATENCIES = 3
"""A cell's sends must last so many of what an answer takes at the least: in the first the engine fills, and then it must be seen."""
TOO_MUCH = (failures.HTTP_429, failures.HTTP_5XX, failures.TIMEOUT, failures.CLOSED_EARLY, failures.TRUNCATED)
"""Where every request of a cell failed so, its rate was too much. A server that dies may have another reason."""
SENT = 0.98
"""Of a rate, what the load generator must have sent per second: else the rate was not tried."""


@dataclass(frozen=True)
class Verdict:
    """Whether a rate met the objectives (None: its cell can't show it), and the words for why not."""

    met: bool | None
    why: str = ""
    broke: bool = False
    """The engine broke, twice: above a rate that passed that is too much, else nobody knows why."""


def judge(cell: Cell, search: Search) -> Verdict:
    """Say whether a cell's rate met the objectives. One at which no request was answered did not; one that broke shows nothing."""
    low, lasted, rate = attained_low(cell, search.confidence), cell.sends_s, cell.rate_rps
    if low is None or lasted is None or rate is None:
        why = cell.error or "its cell was not measured"
        if cell.failure in TOO_MUCH:
            return Verdict(False, why)
        return Verdict(None, f"{why}, twice", broke=True) if cell.first_try else Verdict(None, why)
    if low < search.attainment:
        return Verdict(False, f"{100 * (cell.slo_attainment or 0):.1f} % of the requests met the objectives")
    if cell.least_e2e_s is not None and lasted < LATENCIES * cell.least_e2e_s:
        needed = math.ceil(LATENCIES * cell.least_e2e_s)
        return Verdict(
            None, f"{lasted:.3g} s of sends are too short for answers of {cell.least_e2e_s:.3g} s; set search.min_duration_s to {needed}"
        )
    if cell.piled_up:
        return Verdict(False, f"requests piled up: {100 * (cell.lag or 0):.1f} % of those sent")
    if (sent := (cell.requests - 1) / lasted if lasted else 0.0) < SENT * rate:
        return Verdict(None, f"the load generator sent but {sent:.4g} req/s; give it more cores")
    return Verdict(True)


def pursue(search: Search, cell_at: Callable[[float], Cell]) -> "Hunt":
    """Search to the end. Where cell_at has the cells of a search that was killed, its bracket is theirs and it goes on as it would have."""
    hunt = Hunt(search)
    while (rate := hunt.next_rate()) is not None:
        hunt.tell(rate, judge(cell_at(rate), search))
    return hunt


class Hunt:
    """One search. The same answers give the same rates, so a search that was killed goes on by being told what is known."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._good: float | None = None
        self._bad: float | None = None
        self._runs = 0
        self._unknown = self._limit = ""

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
        if self._runs >= self._search.max_runs or self.bracketed or self._unknown:
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
        if self._unknown:
            reason = self._unknown
        elif self.bracketed:
            reason = f"bracketed within {self._search.tolerance:.0%}"
        elif self._runs >= self._search.max_runs:
            reason = f"max_runs = {self._search.max_runs} reached"
        elif self._good is None:
            reason = f"no rate down to {self._bad:g} req/s met the objectives"
        else:
            reason = "stopped on the way"
        if self._limit and not self._unknown:
            reason = f"{reason}; {self._limit}"
        return SearchResult(
            engine=plan.subject.engine, model=plan.subject.model.shown, variant=plan.subject.variant,
            lengths=plan.lengths.shown if plan.lengths else None, max_goodput_rate_rps=self._good, above_rps=self._bad,
            attainment=self._search.attainment, runs=self._runs, reason=reason,
        )  # fmt: skip

    def tell(self, rate_rps: float, verdict: Verdict) -> None:
        """Take what a cell came to. One that can't show it ends the search: no other rate could show more."""
        self._runs += 1
        if verdict.broke and self._good is not None and rate_rps > self._good:
            verdict = Verdict(False, verdict.why)
        if verdict.met is None:
            self._unknown = f"at {rate_rps:g} req/s {verdict.why}"
        elif verdict.met:
            self._good = max(rate_rps, self._good or 0.0)
        elif self._bad is None or rate_rps < self._bad:
            self._bad, self._limit = rate_rps, f"at {rate_rps:g} req/s {verdict.why}"


def _round(rate: float) -> float:
    """Four digits: a rate stands in a cell's name."""
    return float(f"{rate:.4g}")
