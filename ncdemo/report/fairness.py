"""When two cells may be compared, and what a comparison says. The rules are those of docs/measurement.md."""

from collections.abc import Iterator, Sequence
from math import comb

from ncdemo.report.arguments import differing
from ncdemo.spec.result_bench import Cell, Gates

MIN_REPEATS = 6
AGREEMENT_FLOOR = 0.9
"""Below this share of equal leading tokens two engines did not do the same work. A judgement: bf16 alone moves a few tokens."""
OBJECTIVES = ("slo_ttft_s", "slo_tpot_s")
"""Gates of the figures that objectives are a part of; the others don't depend on them."""
EACH_REPEAT = ("prompt_hash", "arrival_seed")
"""Gates of which each repeat may have its own."""
HEADROOM_FLOOR = 0.5
"""Of the client's own ceiling, what must be left: measurement.md."""
LATENESS_S = 0.05
"""The latest that an open loop may send behind its schedule: a tenth of the interactive objective for the first token. A judgement."""
CONFIDENCE = 0.95


def flags(cell: Cell) -> list[str]:
    """Return why this cell must not be compared silently; empty when every gate is passed."""
    found = []
    if cell.error:
        found.append(f"not measured: {cell.error}")
    if cell.failed:
        found.append(f"{cell.failed} of {cell.requests} requests failed")
    if cell.equal_output_tokens is False:
        of = "" if cell.asked_output_tokens is None else f": {cell.output_tokens} instead of {cell.asked_output_tokens}"
        found.append(f"output tokens differ from what was asked for{of}")
    if cell.tokens_from_text:
        found.append(f"the server told no token counts for {cell.tokens_from_text} answers: their tokens were counted from the text")
    if cell.equal_prompt_tokens is False:
        found.append("the server counted other prompt tokens than it was sent")
    found += _by_its_own_count(cell)
    if cell.token_agreement is not None and cell.token_agreement < AGREEMENT_FLOOR:
        found.append(f"only {cell.token_agreement * 100:.1f} % of tokens agree with {_other(cell)}")
    if cell.exact_match_best is not None and cell.exact_match is not None:
        found.append(f"{cell.exact_match * 100:.1f} % of the answers are right, of another engine's {cell.exact_match_best * 100:.1f} %")
    if cell.client and cell.client.headroom is not None and cell.client.headroom < HEADROOM_FLOOR:
        found.append(
            f"the load generator itself was at {(1 - cell.client.headroom) * 100:.0f} % of what it can do: it may be what was measured; "
            f"set client_processes above {cell.client.processes}, or run it where it has more cores"
        )
    if cell.concurrency is None and cell.client and cell.client.max_lateness_s > LATENESS_S:
        found.append(
            f"requests were sent up to {cell.client.max_lateness_s * 1e3:.0f} ms behind their schedule: the load was not the one asked for"
        )
    if cell.gates and cell.gates.prefix_cache == "unknown":
        found.append("whether a prefix cache answered is not known: ask distinct prompts (lengths, or a longer prompts.file)")
    if cell.gates and cell.gates.prefix_cache == "asked before":
        found.append("a try that was cut short may have asked the same prompts, and the prefix cache could not be emptied")
    if cell.gates and cell.gates.prefix_cache == "on":
        found.append("a prefix cache was on and could not be emptied before the cell: set prompts.distinct")
    return found


def _other(cell: Cell) -> str:
    if cell.agreement_with is None:
        return "the first engine"
    return f"{cell.agreement_with}{', the reference' if cell.agreement_by == 'reference' else ''}"


def _by_its_own_count(cell: Cell) -> Iterator[str]:
    """Yield where the engine's own counters contradict what the client saw."""
    own, ours = cell.counted, cell.output_tokens
    # Engines may or may not count the last token of a request.
    exact = own is not None and bool(cell.asked_output_tokens) and not cell.failed
    if exact and own and own.output_tokens is not None and ours and abs(own.output_tokens - ours) > cell.requests:
        yield f"the engine counted {own.output_tokens:,} output tokens where {ours:,} arrived: it may have been loaded by others too"
    if own and own.cached_prompt_tokens and cell.gates and not cell.gates.prefix_reuse:
        yield f"{own.cached_prompt_tokens:,} prompt tokens came from a prefix cache, by the engine's own count"


def refusal(ours: Sequence[Cell], theirs: Sequence[Cell], names: tuple[str, str] = ("a", "b")) -> str | None:
    """Return why two groups of cells can't be compared; None when they can. Different objectives are no reason."""
    for name, cells in zip(names, (ours, theirs), strict=True):
        for cell in cells:
            if found := flags(cell):
                return f"{name}, repeat {cell.repeat}: {found[0]}"
    if any(c.gates is None for c in (*ours, *theirs)):
        return "a cell has no record of its fairness gates"
    for field in Gates.model_fields:
        if field in OBJECTIVES or field == "prefix_cache":  # the flags have it: off, emptied and distinct prompts come to the same
            continue
        alike = [[*ours, *theirs]]
        if field in EACH_REPEAT:
            alike = [[c for c in alike[0] if c.repeat == repeat] for repeat in {c.repeat for c in ours} & {c.repeat for c in theirs}]
        for group in alike:
            if len(values := _values(group, field)) > 1:
                return f"{field} differs: {' and '.join(map(str, values))}{_why(field, group)}"
    return differing(ours, theirs, names)


def _why(field: str, cells: Sequence[Cell]) -> str:
    distinct = {c.gates.prefix_cache == "distinct prompts" for c in cells if c.gates}
    return "; one side's were distinct: set prompts.distinct alike" if field == "prompt_hash" and len(distinct) > 1 else ""


def objectives_differ(cells: Sequence[Cell]) -> str | None:
    """Return how the objectives of cells differ; None where they don't, or an older version did not write them down."""
    for field in OBJECTIVES:
        if len(values := _values(cells, field)) > 1:
            return f"{field} differs: {' and '.join(map(str, values))}"
    return None


def _values(cells: Sequence[Cell], field: str) -> list[object]:
    """Return the distinct values of a gate; what an older version did not write down differs from nothing."""
    return list(dict.fromkeys(value for c in cells if c.gates and (value := getattr(c.gates, field)) is not None))


def interval(ordered: Sequence[float]) -> tuple[float | None, float | None]:
    """Return an interval that holds the true median with at least 95 % confidence, whatever the distribution.

    Order statistics k and n+1-k, k the largest with 2 P(Binomial(n, 1/2) < k) <= 5 %. None below 6 values: six is the
    fewest for which such k exists.
    """
    n = len(ordered)
    k, tail = 0, 0.0
    while k < n and 2 * (tail + comb(n, k) / 2**n) <= 1 - CONFIDENCE:
        tail += comb(n, k) / 2**n
        k += 1
    return (ordered[k - 1], ordered[n - k]) if k else (None, None)
