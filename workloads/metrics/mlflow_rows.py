"""The metrics of a run directory as MLflow takes them: key, value, time, step.

for key, value, seconds, step in rows(run_dir, record): ...
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import BenchResult

STEP_METRICS = ("loss", "learning_rate", "grad_norm", "tokens", "target_tokens", "tokens_per_s", "step_time_s", "mfu")
GROUPS = ("train/", "eval/", "result/", "bench/")
"""What the keys of all of them begin with."""
Row = tuple[str, float, float, int]
"""Metric key, value, seconds since the run's clock zero, step."""


def rows(run_dir: Path, record: RunRecord) -> Iterator[Row]:
    """Yield every metric. Bench cells: bench/<engine>/<model>/c<concurrency>/<metric> (other loads in words), with the repeat as step."""
    for line in _lines(run_dir / "steps.jsonl"):
        yield from ((f"train/{name}", line[name], line["end_s"], line["step"]) for name in STEP_METRICS if line.get(name) is not None)
    for line in _lines(run_dir / "evals.jsonl"):
        at = line.pop("end_s"), line.pop("step")
        yield from ((f"eval/{name}", value, *at) for name, value in _numbers(line))
    ended_s = record.duration_s or 0.0
    # What a run came to is known at its end alone: an attempt that goes on later would leave a second point.
    ended = {"duration_s": record.duration_s, **(record.train.model_dump() if record.train else {})} if record.status == "finished" else {}
    for name, value in _numbers(ended):
        if not name.startswith(("before.", "after.", "dataset.")):
            yield f"result/{name}", value, ended_s, 0
    if record.bench:
        yield from _bench_rows(record.bench, ended_s)


def _bench_rows(result: BenchResult, ended_s: float) -> Iterator[Row]:
    """Yield the metrics of every cell at the end of its window, then those of searches and of engines' starts."""
    for cell in result.cells:
        fields = cell.model_dump()
        repeat, _ = fields.pop("repeat"), fields.pop("concurrency")
        low, high = fields.pop("usd_per_mtok_spot") or (None, None)
        fields |= {"usd_per_mtok_spot_low": low, "usd_per_mtok_spot_high": high}
        load = f"c{cell.load}" if cell.load.isdigit() else _safe(cell.load)
        group = f"bench/{_safe(cell.subject)}/{_safe(cell.model)}/{load}"
        at = ended_s if cell.start_s is None or cell.window_s is None else cell.start_s + cell.window_s
        yield from ((f"{group}/{name}", value, at, repeat) for name, value in _numbers(fields))
    for search in result.searches:
        group = f"bench/{_safe(search.subject)}/{_safe(search.model)}/search{f'_{_safe(search.lengths)}' if search.lengths else ''}"
        found = {"max_goodput_rate_rps": search.max_goodput_rate_rps, "above_rps": search.above_rps, "runs": search.runs}
        yield from ((f"{group}/{name}", value, ended_s, 0) for name, value in _numbers(found))
    for subject, seconds in result.load_time_s.items():
        yield f"bench/load_time_s/{_safe(subject)}", seconds, 0.0, 0


def _numbers(fields: dict[str, Any]) -> Iterator[tuple[str, float]]:
    return ((key, float(value)) for key, value in flat(fields) if isinstance(value, int | float))


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; a list of plain values is one value, as JSON."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from flat({str(index): inner for index, inner in enumerate(value)}, key)
    elif key:
        yield key, json.dumps(value) if isinstance(value, list) else value


def _safe(name: str) -> str:
    """Return a model's name as one part of a metric key: MLflow takes these characters, and a slash starts a new part."""
    return re.sub(r"[^\w.\-]", "_", name)[-100:]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON Lines file; a last line that a killed run left half written is dropped."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    yield from (json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n"))
