"""How the answers of a sweep's cells begin, so that those measured after them can be held against them.

starts = Starts(plan, ledger)               # what is finished already is read from the ledger's requests
cell.agreements = starts.agreements(planned, records)
"""

import math
from array import array
from collections.abc import Mapping, Sequence

from ncdemo.spec.agreement import AGREEMENT_TOKENS, same_start
from ncdemo.spec.result_bench import RequestRecord, subject_of
from ncdemo.spec.sweep import PlannedCell
from workloads.inference.ledger import Ledger

Ids = Mapping[int, Sequence[int]]
"""Request index -> first output token ids."""
Group = tuple[str, str, int]
"""What subjects are given alike: model, setting and repeat."""


class Starts:
    """Of good answers alone, by what was asked and by subject."""

    def __init__(self, plan: Sequence[PlannedCell], ledger: Ledger) -> None:
        """Read those of the cells that the ledger has, so that a resumed sweep compares with the same answers."""
        self._known: dict[Group, dict[str, Ids]] = {}
        measured = {(c.model, c.setting or "", c.repeat, c.subject): c for c in ledger.done.values() if not c.error}
        unfinished = {(p.subject.model.shown, p.setting, p.repeat) for p in plan if p.key not in ledger.done}
        # Another subject's search may come to the same rate.
        unfinished |= {(c.model, c.setting or "", c.repeat) for c in measured.values() if c.searched}
        found: dict[Group, dict[str, dict[int, Sequence[int]]]] = {}
        for r in ledger.requests() if unfinished else ():
            group, subject = (r.model, r.setting or "", r.repeat), subject_of(r.engine, r.variant)
            if group in unfinished and (*group, subject) in measured and (start := _start(r)):
                found.setdefault(group, {}).setdefault(subject, {})[r.index] = start
        self._known |= {group: dict(by_subject) for group, by_subject in found.items()}

    def agreements(self, plan: PlannedCell, records: Sequence[RequestRecord]) -> dict[str, float] | None:
        """Return how far a cell's answers agree with those of each subject before, and keep them; None where it told no token ids."""
        mine = {r.index: start for r in records if (start := _start(r))}
        if not mine:
            return None
        others = self._known.setdefault((plan.subject.model.shown, plan.setting, plan.repeat), {})
        found = {who: share for who, ids in others.items() if (share := agreement(mine, ids)) is not None}
        others[subject_of(plan.subject.engine, plan.subject.variant)] = mine
        return found


def agreement(ours: Ids, theirs: Ids) -> float | None:
    """Return the mean share of leading tokens, of the first 32, that answers to the same prompts have in common, 0 to 1."""
    shares = [same_start(ours[index], theirs[index]) for index in ours.keys() & theirs.keys()]
    return math.fsum(shares) / len(shares) if shares else None


def _start(record: RequestRecord) -> Sequence[int]:
    """Return how a good answer begins, in as little memory as that takes: a long sweep keeps many."""
    return array("I", record.token_ids[:AGREEMENT_TOKENS]) if record.ok and record.token_ids else ()
