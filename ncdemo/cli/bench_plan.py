"""What a benchmark would measure, how long at least, and what that costs: the dry run.

What can be known before is the time over which an open loop sends. The rest is known from an earlier run of the same spec, if one is
there; else it is said not to be.
"""

from dataclasses import dataclass
from pathlib import Path

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.ledger import CELLS_FILE, read_ledger
from ncdemo.spec.sizes import find
from ncdemo.spec.sweep import PlannedCell, cells, requests, searches
from ncdemo.spec.traces import replayed


@dataclass(frozen=True)
class Earlier:
    """What a run of the same spec took."""

    folder: Path
    wall_s: dict[str, float]
    """Of each finished cell, by its key; reset and records included, the engine's start not."""


def plan_text(spec: BenchSpec, runs: Path) -> str:
    """Return the cells in the order of measuring, with what is known of their time and cost. `runs`: where earlier runs lie."""
    planned, hunts = cells(spec), searches(spec)
    of_trace, sends_s = _trace(spec)
    before = earlier(spec, runs)
    took = before.wall_s if before else {}
    least_s = {cell.key: s for cell in planned if (s := _least(spec, cell, sends_s)) is not None}
    lines = [f"# {len(planned)} cells of {_requests(spec, of_trace)}"]
    for cell in planned:
        known = [f"at least {least_s[cell.key]:.0f} s"] if cell.key in least_s else []
        known += [f"took {took[cell.key]:.1f} s before"] if cell.key in took else []
        lines.append(f"#   {cell.key}{_brackets(known)}")
    if spec.search:
        first_s = requests(spec, hunts[0]) / spec.search.start_rps
        rates = f"the first sends for {first_s:.0f} s, each other for {spec.search.min_duration_s:.0f} s at least"
        lines += [f"#   a search of at most {spec.search.max_runs} cells ({rates}): {first.subject.shown}" for first in hunts]
        lines.append(f"# at most {len(planned) + spec.search.max_runs * len(hunts)} cells in all")
    if total_s := sum(least_s.values()):
        lines.append(f"# open loops send for {total_s:.0f} s{_price(spec, total_s)}; closed loops, loading and searches come on top")
    return "\n".join([*lines, *_by_experience(spec, planned, before)])


def earlier(spec: BenchSpec, runs: Path) -> Earlier | None:
    """Return the run of the same spec that finished most cells, of several the newest; None without one."""
    found = []
    for path in sorted(runs.glob(f"*/{CELLS_FILE}"), key=lambda path: path.stat().st_mtime):
        try:
            ledger = read_ledger(path)
        except (SpecError, OSError):
            continue  # of another version, or not ours to read
        walls = {entry.key: entry.wall_s for entry in ledger.entries if not entry.cell.error}
        if ledger.spec_hash == spec.spec_hash() and walls:
            found.append(Earlier(path.parent, walls))
    return max(reversed(found), key=lambda run: len(run.wall_s), default=None)


def _by_experience(spec: BenchSpec, planned: list[PlannedCell], before: Earlier | None) -> list[str]:
    if before is None:
        return ["# how long closed loops, loading and searches take isn't known: no earlier run of this very spec is here"]
    spent_s = sum(before.wall_s.values())
    of = sum(cell.key in before.wall_s for cell in planned)
    more = len(before.wall_s) - of
    searched = f" and {more} of searches" if more else ""
    what = f"{of} of these {len(planned)} cells{searched}"
    return [f"# {before.folder} took {spent_s:.0f} s for {what}{_price(spec, spent_s)}; loading the engines came on top"]


def _trace(spec: BenchSpec) -> tuple[int, float]:
    """Return how many requests the trace has for a cell, and for how long it sends them, seconds; 0 without one."""
    if spec.trace is None:
        return 0, 0.0
    rows, _ = replayed(spec.trace.file, spec.max_model_len, spec.prompts.count)
    return len(rows), rows[-1].offset_s / spec.trace.scale


def _requests(spec: BenchSpec, of_trace: int) -> str:
    count = spec.prompts.count
    others = any(load.kind != "trace" for load in spec.loads) or spec.trace is None
    if not spec.trace or of_trace == count:
        return f"{count} requests"
    return f"{count} requests, of the trace {of_trace}" if others else f"{of_trace} requests"


def _least(spec: BenchSpec, cell: PlannedCell, trace_s: float) -> float | None:
    """Return for how long a cell sends; None for a closed loop, which sends when an answer ends."""
    if cell.load.kind == "trace":
        return trace_s
    return spec.prompts.count / cell.load.rate_rps if cell.load.rate_rps else None


def _brackets(known: list[str]) -> str:
    return f" ({', '.join(known)})" if known else ""


def _price(spec: BenchSpec, seconds: float) -> str:
    """Return what the node costs meanwhile, where the spec names one whose price is known."""
    size = find(spec.prices.vm_size) if spec.prices else None
    hourly = size.price(spec.prices.region) if size and spec.prices else None
    return f", {hourly * seconds / 3600:.2f} USD of {size.name} as you go" if hourly is not None and size else ""
