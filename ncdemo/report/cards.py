"""The headline: three to six figures, each with one row per run or engine, in the words of docs/measurement.md."""

from dataclasses import dataclass
from statistics import median

import numpy as np

from ncdemo.report.fairness import flags
from ncdemo.report.gpu_health import slowed_share
from ncdemo.report.machine_panels import machines
from ncdemo.report.read import Run
from ncdemo.report.show import NOT_MEASURED, UNBOUND, ms, number, percent, said
from ncdemo.spec.result_bench import Cell, first_token

ATTAINED = 0.99
"""Share of requests that must meet the objectives, as a search asks for by default."""


@dataclass(frozen=True)
class Row:
    label: str
    value: str
    detail: str = ""
    colour: int | None = None
    flagged: bool = False


@dataclass(frozen=True)
class Card:
    title: str
    unit: str
    rows: list[Row]


def headline(runs: list[Run], colours: dict[str, int]) -> list[Card]:
    """Return the cards that have at least one measured row."""
    trained = [run for run in runs if run.kind == "train"]
    cards = [
        Card("Exact match", "before → after", [_exact(run, colours) for run in trained]),
        Card("Held-out loss", "nats, before → after", [_loss(run, colours) for run in trained]),
        Card("Training", "tokens/s, median step", [_speed(run, colours) for run in trained]),
        *_bench_cards(runs, colours),
        Card("GPU slowed down", "share of samples, the worst GPU", [row for run in runs if (row := _slowed(run, colours))]),
    ]
    return [card for card in cards if any(row.value not in (NOT_MEASURED, f"{NOT_MEASURED} → {NOT_MEASURED}") for row in card.rows)]


def tokens_per_s(run: Run) -> float | None:
    """Return the record's training speed; of a run without a record, by the same definition from its steps."""
    if run.record and run.record.train:
        return run.record.train.tokens_per_s
    measured = run.steps["tokens_per_s"][1:]
    measured = measured[np.isfinite(measured)]
    return float(np.median(measured)) if len(measured) else None


def _exact(run: Run, colours: dict[str, int]) -> Row:
    before, after = run.before, run.after
    examples = next((e.exact_match_examples for e in (after, before) if e and e.exact_match_examples), None)
    shown = " → ".join(percent(e.exact_match if e else None) for e in (before, after))
    return Row(run.label, shown, f"{examples} held-out examples" if examples else "", colours[run.label])


def _loss(run: Run, colours: dict[str, int]) -> Row:
    before, after = run.before, run.after
    shown = " → ".join(number(e.loss if e else None) for e in (before, after))
    perplexity = " → ".join(number(e.perplexity if e else None) for e in (before, after))
    return Row(run.label, shown, f"perplexity {perplexity}", colours[run.label])


def _speed(run: Run, colours: dict[str, int]) -> Row:
    result = run.record.train if run.record else None
    detail = (
        f"{result.world_size} rank{'s' * (result.world_size > 1)}, {result.precision}"
        if result
        else f"of the {len(run.steps['step'])} steps it took"
    )
    return Row(run.label, number(tokens_per_s(run)), detail, colours[run.label])


def _slowed(run: Run, colours: dict[str, int]) -> Row | None:
    """Return nothing for a run whose GPUs were never slowed down by a fault."""
    known = {(node, index): health for node, it in machines(run).items() for index, health in it.health.items()}
    found = [(share, gpu) for gpu, health in known.items() if (share := slowed_share(health))]
    if not found:
        return None
    share, (node, index) = max(found)
    where = f"GPU {index} of node {node}" if run.nodes else f"GPU {index}"
    return Row(run.label, percent(share), f"{where}, by {', '.join(sorted(known[node, index].slowed))}", colours.get(run.label))


def _bench_cards(runs: list[Run], colours: dict[str, int]) -> list[Card]:
    speed, ttft, tpot = [], [], []
    benches = [(run, run.measured) for run in runs if run.measured]
    for run, cells in benches:
        for subject, model, lengths in dict.fromkeys((c.subject, c.model, c.lengths) for c in cells):
            best = _best([c for c in cells if (c.subject, c.model, c.lengths) == (subject, model, lengths)])
            name = run.label if len(benches) > 1 else ""
            label = " · ".join(filter(None, (subject, _short(model, cells), _lengths(lengths, cells), name)))
            if not best:
                speed.append(Row(label, NOT_MEASURED, "", colours[subject]))
                continue
            bad = any(flags(c) for c in best)
            values = [c.output_tokens_per_s for c in best if c.output_tokens_per_s is not None]
            where = f"at {said(best[0].load.removesuffix(f', {lengths}'))}"
            many = f"{where}, median of {len(values)} repeats" if len(values) > 1 else f"{where}, 1 repeat"
            speed.append(Row(label, number(median(values)), many + _short_of(best), colours[subject], bad))
            first = first_token(best[0].concurrency)
            ttft.append(Row(label, _p50(best, first), where + (", since due" if first != "ttft_s" else ""), colours[subject], bad))
            tpot.append(Row(label, _p50(best, "tpot_s"), where, colours[subject], bad))
    rates = [row for run, _ in benches for row in _rates(run, colours, run.label if len(benches) > 1 else "")]
    return [
        Card("Highest rate", "requests/s that meet the objectives", rates),
        Card("Output", "tokens/s, best load", speed),
        Card("TTFT", "p50", ttft),
        Card("TPOT", "p50", tpot),
    ]


def _rates(run: Run, colours: dict[str, int], name: str) -> list[Row]:
    """Return where each search ended."""
    searches = run.record.bench.searches if run.record and run.record.bench else []
    rows = []
    for one in searches:
        at = [c for c in run.measured if c.searched and (c.subject, c.model, c.lengths) == (one.subject, one.model, one.lengths)]
        best = [c for c in at if c.rate_rps == one.max_goodput_rate_rps]
        label = " · ".join(filter(None, (one.subject, _short(one.model, run.measured), _lengths(one.lengths, run.measured), name)))
        value = "none" if one.max_goodput_rate_rps is None else number(one.max_goodput_rate_rps)
        rows.append(Row(label, value, one.reason, colours.get(one.subject), any(flags(c) for c in best)))
    return rows


def _best(cells: list[Cell]) -> list[Cell]:
    """Return the repeats of the load with the highest median output tokens/s, of those that are the best to be had.

    Loads of which no cell fails a gate and that met the objectives go first; then those that met them too rarely; then the flagged.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.load, []).append(cell)
    measured = [group for group in groups.values() if any(c.output_tokens_per_s is not None for c in group)]

    def rank(group: list[Cell]) -> tuple[bool, bool, float]:
        fair = not any(flags(c) for c in group)
        return fair, fair and not _short_of(group), median(v for c in group if (v := c.output_tokens_per_s) is not None)

    return max(measured, key=rank, default=[])


def _short_of(cells: list[Cell]) -> str:
    """Return what shows that a load was too much: too few requests that met the objectives, or a queue that grew; else nothing."""
    shares = [c.slo_attainment for c in cells if c.slo_attainment is not None]
    few = f", {percent(median(shares))} met the objectives" if shares and median(shares) < ATTAINED else ""
    return few + ", requests piled up" * any(c.piled_up for c in cells)


def _p50(cells: list[Cell], metric: str) -> str:
    """Return the median over repeats of the p50, if every repeat bounds it."""
    found = [getattr(c, metric) for c in cells if getattr(c, metric) is not None]
    if not found:
        return NOT_MEASURED
    return UNBOUND if any(d.p50 is None for d in found) else ms(median(d.p50 for d in found))


def _lengths(lengths: str | None, cells: list[Cell]) -> str:
    return lengths or "" if len({c.lengths for c in cells}) > 1 else ""


def _short(model: str, cells: list[Cell]) -> str:
    return model.rstrip("/").split("/")[-1] if len({c.model for c in cells}) > 1 else ""
