"""What a benchmark would measure, how long at least, and what that costs: the dry run.

What can be known before is the time over which an open loop sends. The rest is known from an earlier run of the same spec, if one is
there; else it is said not to be.
"""

from pathlib import Path

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.ledger import Earlier, LedgerEntry, earlier, resumable, usual_s, walls
from ncdemo.spec.sizes import find
from ncdemo.spec.sweep import PlannedCell, cells, requests, searches
from ncdemo.spec.traces import replayed

UNKNOWN_REST = (
    "# how long the rest takes isn't known: no other repeat of its closed loops is finished, and no earlier run of this very spec is here"
)


def plan_text(spec: BenchSpec, runs: Path, resume: Path | None = None) -> str:
    """Return the cells in the order of measuring, with what is known of their time and cost. `runs`: where earlier runs lie.

    Of a run that goes on (`resume`) what it has finished is marked, and time and cost are those of the rest.
    """
    planned, hunts = cells(spec), searches(spec)
    done = {entry.key: entry for entry in resumable(resume, spec.spec_hash()).entries} if resume else {}
    left = [cell for cell in planned if cell.key not in done]
    of_trace, sends_s = _trace(spec)
    before = earlier(spec.spec_hash(), runs, done)
    took = before.wall_s if before else {}
    here = walls(done.values())
    usual = {cell.key: s for cell in left if (s := usual_s(cell.key, here)) is not None}
    least_s = {cell.key: s for cell in left if (s := _least(spec, cell, sends_s)) is not None}
    lines = [f"# {len(planned)} cells of {_requests(spec, of_trace)}"]
    if resume:
        lines[0] += f"; {len(planned) - len(left)} are finished in {resume} and are not measured again, {len(left)} are left"
    for cell in planned:
        known = [f"at least {least_s[cell.key]:.0f} s"] if cell.key in least_s else []
        if cell.key in usual:
            known.append(f"other repeats took {usual[cell.key]:.1f} s")
        elif cell.key in took:
            known.append(f"took {took[cell.key]:.1f} s before")
        lines.append(f"#   {cell.key}{_brackets([_finished(done[cell.key])] if cell.key in done else known)}")
    tried = {first.key: _tried(first, done) for first in hunts}
    lines += [_search(spec, first, tried[first.key]) for first in hunts]
    if spec.search:
        most = f"at most {len(planned) + spec.search.max_runs * len(hunts)} cells in all"
        lines.append(f"# {most}, {len(planned) - len(left) + sum(tried.values())} of them finished" if resume else f"# {most}")
    if total_s := sum(least_s.values()):
        lines.append(f"# open loops send for {total_s:.0f} s{_price(spec, total_s)}; closed loops, loading and searches come on top")
    return "\n".join([*lines, *(_rest(spec, left, usual, before) if resume else _by_experience(spec, planned, before))])


def _finished(entry: LedgerEntry) -> str:
    failed = f", it failed: {entry.cell.failure or entry.cell.error}" if entry.cell.error else ""
    return f"finished, took {entry.wall_s:.1f} s{failed}"


def _search(spec: BenchSpec, first: PlannedCell, tried: int) -> str:
    assert spec.search
    first_s = requests(spec, first) / spec.search.start_rps
    rates = f"the first sends for {first_s:.0f} s, each other for {spec.search.min_duration_s:.0f} s at least"
    if tried:
        rates = f"{tried} of them finished, each other sends for {spec.search.min_duration_s:.0f} s at least"
    return f"#   a search of at most {spec.search.max_runs} cells ({rates}): {first.subject.shown}"


def _tried(first: PlannedCell, done: dict[str, LedgerEntry]) -> int:
    """Return how many rates of a search are finished."""
    who, lengths = first.subject, first.lengths.shown if first.lengths else None
    found = [entry.cell for entry in done.values() if entry.cell.searched]
    return sum((c.engine, c.model, c.variant, c.lengths) == (who.engine, who.model.shown, who.variant, lengths) for c in found)


def _rest(spec: BenchSpec, left: list[PlannedCell], usual: dict[str, float], before: Earlier | None) -> list[str]:
    """Say what is left of a run that goes on: by what the other repeats of a cell took in it, else by an earlier run."""
    by_before = {} if before is None else {cell.key: before.wall_s[cell.key] for cell in left if cell.key in before.wall_s}
    known = by_before | usual
    if not known:
        return [UNKNOWN_REST] if left or spec.search else []
    by = ["by their other repeats"] if usual else []
    by += [f"by {before.folder}"] if before and known.keys() - usual.keys() else []
    what = f"the {len(left)} cells" if len(known) == len(left) else f"{len(known)} of the {len(left)} cells"
    rest_s = sum(known.values())
    return [f"# {what} that are left take about {rest_s:.0f} s{_price(spec, rest_s)}, {' and '.join(by)}; loading{_searches(spec)} on top"]


def _searches(spec: BenchSpec) -> str:
    return " the engines and searches come" if spec.search else " the engines comes"


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
