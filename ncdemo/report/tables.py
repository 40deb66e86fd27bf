"""The numbers of the page as rows of text: training results, cells, environment, and what differs between specs."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from ncdemo.report.fairness import flags
from ncdemo.report.pairs import compare
from ncdemo.report.read import Run
from ncdemo.report.show import NOT_MEASURED, UNBOUND, duration, number, percent, size
from ncdemo.spec.result_bench import Cell, Distribution

COMPARISONS = (("Model", ""), ("Load", "n"), ("Engines", ""), ("Median ratio", "n"), ("Interval", ""), ("Repeats", "n"), ("Difference", ""))
SEARCHES = (
    ("Engine", ""),
    ("Model", ""),
    ("Lengths", ""),
    ("Good (req/s)", "n"),
    ("No longer good (req/s)", "n"),
    ("Cells", "n"),
    ("Ended because", ""),
)
LATENCIES = (("ttft_s", "TTFT"), ("ttft_from_schedule_s", "TTFT since due"), ("tpot_s", "TPOT"), ("itl_s", "ITL"), ("e2e_s", "End to end"))
COSTS = (
    ("Engine", ""),
    ("Model", ""),
    ("Load", "n"),
    ("USD per million tokens", "n"),
    ("The same on spot", "n"),
    ("J per token", "n"),
    ("Fairness", ""),
)
FAILURES = (("Engine", ""), ("Model", ""), ("Load", "n"), ("Repeat", "n"), ("Times", "n"), ("Reason", "wide"))
Table = list[tuple[str, list[str]]]
"""A name and one text per run."""


def training(runs: list[Run]) -> Table:
    """Return what the record says of each run; rows that no run measured are left out."""
    rows: dict[str, list[str]] = {}
    for i, run in enumerate(runs):
        result = run.record.train if run.record else None
        values = {
            "Steps": number(result.steps if result else None),
            "Examples": number(result.examples if result else None),
            "Tokens": number(result.tokens if result else None),
            "Target tokens": number(result.target_tokens if result else None),
            "Training time (sum of steps)": duration(result.train_time_s if result else None),
            "Tokens/s (median step)": number(result.tokens_per_s if result else None),
            "Largest resident memory of a rank": size(result.peak_rss_bytes if result else None),
            "Peak GPU memory": size(result.peak_vram_bytes if result else None),
            "GPU energy of the steps (J)": number(result.energy_j if result else None),
            "Ranks": number(result.world_size if result else None),
            "Precision": result.precision if result else NOT_MEASURED,
            "Trainable parameters": number(result.trainable_parameters if result else None),
            "Parameters": number(result.parameters if result else None),
            "Padding": percent(result.padding_fraction if result else None),
            "Examples cut to max_seq_len": number(result.truncated_examples if result else None),
        }
        for field, name, show in (
            ("loss", "Held-out loss (nats)", number),
            ("perplexity", "Perplexity", number),
            ("token_accuracy", "Token accuracy", percent),
            ("exact_match", "Exact match", percent),
            ("field_accuracy", "Field accuracy", percent),
        ):
            both = [show(getattr(evaluation, field) if evaluation else None) for evaluation in (run.before, run.after)]
            values[f"{name}, before → after"] = NOT_MEASURED if set(both) == {NOT_MEASURED} else " → ".join(both)
        if result:
            values |= {f"Data: {key}": NOT_MEASURED if value is None else _text(value) for key, value in result.dataset.items()}
        for name, value in values.items():
            rows.setdefault(name, [NOT_MEASURED] * len(runs))[i] = value
    return [(name, values) for name, values in rows.items() if any(value != NOT_MEASURED for value in values)]


def latencies(run: Run) -> list[tuple[str, str]]:
    """Return field and name of what is said of a cell's latency; since when a request was due only where an open loop is."""
    found = run.measured
    return [one for one in LATENCIES if one[0] != "ttft_from_schedule_s" or any(c.concurrency is None for c in found)]


def cells(run: Run, colours: dict[str, int]) -> list[dict[str, Any]]:
    """Return one row per cell, ordered so that what is compared stands together."""
    shown = [field for field, _ in latencies(run)]
    found = run.measured
    loads = list(dict.fromkeys(c.load for c in found))
    return [
        _cell(c, shown) | {"colour": colours[c.subject] % 8}
        for c in sorted(found, key=lambda c: (c.model, loads.index(c.load), c.subject, c.repeat))
    ]


def _cell(cell: Cell, latencies: Sequence[str]) -> dict[str, Any]:
    rates = (cell.output_tokens_per_s, cell.requests_per_s, cell.goodput_rps)
    return {
        "engine": cell.subject,
        "model": cell.model,
        "load": cell.load,
        "repeat": cell.repeat,
        "counts": [number(cell.requests), number(cell.failed)],
        "numbers": [*map(number, rates), percent(cell.slo_attainment)],
        "latencies": [_percentiles(getattr(cell, field)) for field in latencies],
        "equal": {True: "yes", False: "no", None: "not known" if cell.tokens_from_text else "not asked for"}[cell.equal_output_tokens],
        "agreement": percent(cell.token_agreement),
        "exact": "" if cell.exact_match is None else f"{percent(cell.exact_match)} of {number(cell.exact_match_examples)}",
        "flags": flags(cell),
    }


def _percentiles(found: Distribution | None) -> list[str]:
    """Return p50, p90 and p99 in ms without unit."""
    if found is None:
        return [NOT_MEASURED] * 3
    return [UNBOUND if p is None else number(p * 1e3, 3) for p in (found.p50, found.p90, found.p99)]


def without_silent(heads: Sequence[tuple[str, str]], rows: list[list[str]]) -> dict[str, Any]:
    """Return heads (name and CSS class) and rows of (text, class) without the columns that tell no row from another.

    Those are columns in which nothing stands, or nothing was measured, and a single model: the page names it above.
    """
    told = [set(column) for column in zip(*rows, strict=True)]
    kept = [
        i for i, (name, _) in enumerate(heads) if not told or not (told[i] <= {"", NOT_MEASURED} or (name == "Model" and len(told[i]) == 1))
    ]
    return {"heads": [heads[i] for i in kept], "rows": [[(row[i], heads[i][1]) for i in kept] for row in rows]}


def comparisons(run: Run) -> dict[str, Any]:
    """Return every engine against the first, with the interval that the repeats allow."""
    rows = []
    bench = run.record.bench if run.record else None
    for c in compare(run.measured, bench.prompt_rows.used if bench and bench.prompt_rows else None):
        between = f"{number(c.low)} to {number(c.high)}" if c.low is not None else ""
        ratio = f"{number(c.ratio)} ×" if c.ratio is not None else NOT_MEASURED
        rows.append([c.model, c.load, f"{c.engine} / {c.base}", ratio, between, str(c.repeats), c.verdict])
    return without_silent(COMPARISONS, rows)


def searches(run: Run) -> dict[str, Any]:
    """Return where each search for the highest rate ended."""
    found = run.record.bench.searches if run.record and run.record.bench else []
    rows = [
        [s.subject, s.model, s.lengths or "", number(s.max_goodput_rate_rps), number(s.above_rps), str(s.runs), s.reason] for s in found
    ]
    return without_silent(SEARCHES, rows)


def costs(run: Run) -> dict[str, Any]:
    """Return what tokens cost, median over the repeats of a subject and load; nothing where no cell knows a price or the power."""
    found = run.measured
    rows = []
    for model, load, subject in dict.fromkeys((c.model, c.load, c.subject) for c in found):
        group = [c for c in found if (c.model, c.load, c.subject) == (model, load, subject)]
        usd, joules = _middle([c.usd_per_mtok for c in group]), _middle([c.energy_j_per_token for c in group])
        spot = [c.usd_per_mtok_spot for c in group if c.usd_per_mtok_spot]
        if usd is None and joules is None and not spot:
            continue
        between = f"{number(min(s[0] for s in spot))} to {number(max(s[1] for s in spot))}" if spot else NOT_MEASURED
        flag = "not comparable: a cell fails a gate" if any(flags(c) for c in group) else ""
        rows.append([subject, model, load, number(usd), between, number(joules), flag])
    return without_silent(COSTS, rows)


def _middle(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return median(known) if known else None


def failures(run: Run) -> dict[str, Any]:
    """Return each distinct error of requests with how often it came, from requests.jsonl."""
    rows = [
        [key.subject, key.model, key.load, str(key.repeat), str(count), message]
        for key, cell in run.cells.items()
        for message, count in cell.errors.most_common(3)
    ]
    return without_silent(FAILURES, rows)


def environment(runs: list[Run]) -> list[tuple[str, Table]]:
    """Return nested dicts flattened to dotted keys, grouped by their first part; a key a run lacks is an empty text."""
    flat = [_flatten(run.environment) for run in runs]
    groups: dict[str, Table] = {}
    for key in dict.fromkeys(key for one in flat for key in one):
        group, _, rest = key.partition(".")
        groups.setdefault(group if rest else "", []).append((rest or key, [one.get(key, "") for one in flat]))
    return list(groups.items())


def spec_differences(runs: list[Run]) -> Table:
    """Return the keys whose values differ between the specs of runs of one kind."""
    flat = [_flatten(run.spec) for run in runs]
    rows = [(key, [one.get(key, "") for one in flat]) for key in dict.fromkeys(key for one in flat for key in one)]
    return [(key, values) for key, values in rows if key != "name" and len(set(values)) > 1]


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in _flatten(inner, f"{prefix}.{key}" if prefix else str(key)).items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {k: v for i, inner in enumerate(value) for k, v in _flatten(inner, f"{prefix}.{i}").items()}
    if isinstance(value, list):
        return {prefix: ", ".join(map(str, value)) or "none"}
    if prefix.endswith("_bytes") and isinstance(value, int):
        return {prefix.removesuffix("_bytes"): size(value)}
    return {prefix: "not known" if value in (None, {}) else _text(value)} if prefix else {}


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
