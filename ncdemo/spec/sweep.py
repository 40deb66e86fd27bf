"""A benchmark spec to its cells, in the order they are measured: one plan for the dry run and for the run itself.

    for cell in cells(spec): print(cell.key)

Interleaved: within a repeat every load and length is given to every subject in turn, so that drift of the machine hits them
alike. A subject is what must be started with its own parameters: engine x precision x tensor parallel size, per model.
"""

import math
from dataclasses import dataclass, replace
from itertools import product

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.common import ModelRef, Precision
from ncdemo.spec.traffic import Lengths, Load


@dataclass(frozen=True)
class SubjectKey:
    """One set of server parameters."""

    engine: str
    model: ModelRef
    precision: Precision
    """As the spec has it: may be auto."""
    tensor_parallel: int
    variant: str | None
    """Names precision and size where the sweep has several; None where it has one."""

    @property
    def shown(self) -> str:
        return " ".join(filter(None, (self.engine, self.model.shown, self.variant)))


@dataclass(frozen=True)
class PlannedCell:
    """One cell before it is measured; `key` names it in the ledger, across attempts."""

    subject: SubjectKey
    load: Load
    lengths: Lengths | None
    repeat: int

    @property
    def setting(self) -> str:
        """What every subject is given alike."""
        return ", ".join(filter(None, (self.load.shown, self.lengths.shown if self.lengths else None)))

    @property
    def key(self) -> str:
        s = self.subject
        return " | ".join((s.engine, s.model.shown, s.precision, f"tp{s.tensor_parallel}", self.setting, f"repeat {self.repeat}"))

    def at(self, load: Load) -> "PlannedCell":
        return replace(self, load=load)


def without_repeat(key: str) -> str:
    """Return what all repeats of a cell share of their keys."""
    return key.rpartition(" | ")[0]


def subjects(spec: BenchSpec, model: ModelRef) -> list[SubjectKey]:
    """Return what is started for one model."""
    precisions, sizes = spec.precisions, spec.tensor_parallel_sizes
    return [
        SubjectKey(engine, model, precision, size, " ".join([precision] * (len(precisions) > 1) + [f"tp{size}"] * (len(sizes) > 1)) or None)
        for engine, precision, size in product(spec.engines, precisions, sizes)
    ]


def cells(spec: BenchSpec) -> list[PlannedCell]:
    """Return every cell that is known before the run, in the order of measuring. A search's cells come after these."""
    found: list[PlannedCell] = []
    lengths = spec.lengths or (None,)
    for model in spec.models:
        mine = subjects(spec, model)
        settings = list(product(spec.loads, lengths))
        for repeat in range(spec.repeats):
            # One subject at a time: it keeps its server for all settings of the repeat. Side by side: setting by setting.
            pairs = (
                [(subject, setting) for setting in settings for subject in mine]
                if spec.side_by_side
                else [(subject, setting) for subject in mine for setting in settings]
            )
            found += [PlannedCell(subject, load, one, repeat) for subject, (load, one) in pairs]
    return found


def total(spec: BenchSpec) -> int | None:
    """Return how many cells a run has; None where only the run knows, as with a search."""
    return None if spec.search else len(cells(spec))


def requests(spec: BenchSpec, cell: PlannedCell) -> int:
    """Return how many requests a cell sends (a trace: at most). A rate of a search is sent for its min_duration_s at least."""
    if spec.search is None or not cell.load.search or cell.load.rate_rps is None:
        return spec.prompts.count
    return max(spec.prompts.count, math.ceil(cell.load.rate_rps * spec.search.min_duration_s))


def settings(spec: BenchSpec) -> list[str]:
    """Return what every subject of a model is given alike in each repeat, in words; without a search's rates."""
    return list(dict.fromkeys(cell.setting for cell in cells(spec)))


def searches(spec: BenchSpec) -> list[PlannedCell]:
    """Return one cell per search, at its first rate: each subject and length is searched once."""
    if spec.search is None:
        return []
    first = Load(kind=spec.search.process, rate_rps=spec.search.start_rps, search=True)
    return [
        PlannedCell(subject, first, one, 0)
        for model in spec.models
        for subject, one in product(subjects(spec, model), spec.lengths or (None,))
    ]
