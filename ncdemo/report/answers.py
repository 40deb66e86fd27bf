"""Whether two sides answered the same: agreement of their greedy answers, and how often they were right.

A fast engine that answers something else, or worse, did other work; its speed is not compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ncdemo.report.fairness import AGREEMENT_FLOOR
from ncdemo.report.side import Start
from ncdemo.spec.agreement import AGREEMENT_TOKENS, same_start
from ncdemo.spec.result_bench import Cell
from ncdemo.spec.shares import apart


@dataclass(frozen=True)
class Agreement:
    """How alike the answers of one model and load are; share is None where that can't be known, and `why` says it."""

    model: str
    load: str
    share: float | None
    """Mean of ncdemo.spec.agreement.same_start over the answers that both have."""
    answers: int = 0
    by: str = "tokens"
    """tokens: ids; words: a side has texts alone."""
    why: str = ""

    @property
    def shown(self) -> str:
        if self.share is None:
            return f"answers not compared: {self.why}"
        return f"{self.share * 100:.1f} % of the first {AGREEMENT_TOKENS} {self.by} agree, mean of {self.answers} answers"


@dataclass(frozen=True)
class Quality:
    """Share of right answers of one model and load, and a - b with its interval at 95 %."""

    model: str
    load: str
    a: float
    b: float
    low: float
    high: float
    examples: int

    @property
    def worse(self) -> str | None:
        """The side that is worse by more than noise."""
        return "a" if self.high < 0 else "b" if self.low > 0 else None

    @property
    def shown(self) -> str:
        return self.told(("a", "b"))

    def told(self, names: tuple[str, str]) -> str:
        """Say it with names for the two sides."""
        values = f"exact_match {self.a * 100:.1f} % and {self.b * 100:.1f} % of {self.examples} examples"
        said = "no more than noise" if self.worse is None else f"{names['ab'.index(self.worse)]} is worse"
        return f"{values}, {names[0]} - {names[1]} in [{self.low * 100:+.1f}, {self.high * 100:+.1f}] points: {said}"


def agreement(
    model: str, load: str, ours: Sequence[Cell], a: Mapping[tuple[int, int], Start], b: Mapping[tuple[int, int], Start]
) -> Agreement:
    """Compare how the answers begin that both have to the same prompt and repeat. Equal prompts are for the gates to prove."""
    if any(c.gates and c.gates.temperature > 0 for c in ours):
        return Agreement(model, load, None, why="they were sampled, so they differ by design")
    if not a or not b:
        lacking = " and ".join(name for name, found in (("a", a), ("b", b)) if not found)
        return Agreement(model, load, None, why=f"no requests of {lacking} are on record")
    both = sorted(a.keys() & b.keys())
    tokens = [same_start(x, y) for key in both if (x := a[key][0]) and (y := b[key][0])]
    words = [] if tokens else [same_start(s, t) for key in both if (s := a[key][1]) and (t := b[key][1])]
    if not tokens and not words:
        return Agreement(model, load, None, why="neither token ids nor texts of the same requests are on record")
    shares, by = (tokens, "tokens") if tokens else (words, "words")
    return Agreement(model, load, fmean(shares), len(shares), by)


def quality(model: str, load: str, ours: Sequence[Cell], theirs: Sequence[Cell], distinct: int | None) -> Quality | None:
    """Compare the shares of right answers; None where a side has none. Repeats ask the same again, so they are no further examples."""
    a, b = ([c.exact_match for c in cells if c.exact_match is not None] for cells in (ours, theirs))
    counts = [c.exact_match_examples for c in (*ours, *theirs) if c.exact_match_examples]
    if not a or not b or not counts:
        return None
    examples = min(counts) if distinct is None else min(*counts, distinct)
    return Quality(model, load, fmean(a), fmean(b), *apart(fmean(a), fmean(b), examples), examples)


def unlike(agreed: Agreement, right: Quality | None) -> str | None:
    """Return why the two did not do the same work; None where nothing shows it."""
    if agreed.share is not None and agreed.share < AGREEMENT_FLOOR:
        return f"only {agreed.shown}: at least {AGREEMENT_FLOOR * 100:g} % must"
    if right is not None and right.worse:
        return right.shown
    return None
