"""What of a run directory becomes what in MLflow: spec to params, records to metrics, how it ended to tags.

Started by mlflow_log.py with MLFLOW_TRACKING_URI set; prints the MLflow run id, or one line that says what is wrong.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python -m workloads.metrics.mlflow_export RUN_DIR
"""

import datetime
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import BenchResult
from workloads.metrics.redact import redact

EXPERIMENT = "ncdemo"
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
STEP_METRICS = ("loss", "learning_rate", "grad_norm", "tokens_per_s", "step_time_s")
ARTIFACTS = ("result.json", "spec.yaml", "environment.json")
Row = tuple[str, float, float, int]
"""Metric key, value, seconds since the run's clock zero, step."""


def export(run_dir: Path, uri: str) -> str:
    """Create or update the MLflow run of this directory and return its id."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    if uri.startswith("sqlite"):
        # Without them MLflow says that it doesn't know the address.
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
    record = RunRecord.model_validate_json((run_dir / "result.json").read_text(encoding="utf-8"))
    environment = _read(run_dir / "environment.json", json.loads)
    spec = _read(run_dir / "spec.yaml", yaml.safe_load)
    started_ms = round(datetime.datetime.fromisoformat(record.started_at).timestamp() * 1000)
    client = MlflowClient(tracking_uri=uri)
    run = _find_or_create(client, record, started_ms)
    run_id = run.info.run_id

    # MLflow refuses to change a param, and equal metric points are stored once: so a second export is harmless.
    params = {key: redact(str(value)) for key, value in _flat(spec) if key not in run.data.params}
    for batch in _batches(iter(params.items()), 100):
        client.log_batch(run_id, params=[Param(key, value) for key, value in batch])
    for batch in _batches(_rows(run_dir, record), 1000):
        client.log_batch(run_id, metrics=[Metric(key, value, started_ms + round(1000 * s), step) for key, value, s, step in batch])
    tags = {"status": record.status, "reason": record.reason, "kind": record.kind, "name": record.name, "spec_hash": record.spec_hash}
    tags |= {"git_commit": environment.get("git_commit"), "git_dirty": environment.get("git_dirty")}
    if record.bench:
        tags |= {
            "prompt_hash": record.bench.prompt_hash,
            **{f"engine.{name}": version for name, version in record.bench.engine_versions.items()},
        }
    client.log_batch(run_id, tags=[RunTag(key, redact(str(value))) for key, value in tags.items() if value is not None])
    for name in ARTIFACTS:
        if (run_dir / name).exists():
            client.log_text(run_id, redact((run_dir / name).read_text(encoding="utf-8")), name)
    if record.status == "running":
        client.update_run(run_id, status="RUNNING")
    else:
        ended_ms = None if record.duration_s is None else started_ms + round(1000 * record.duration_s)
        client.set_terminated(run_id, STATUS[record.status], ended_ms)
    return str(run_id)


def _find_or_create(client: Any, record: RunRecord, started_ms: int) -> Any:
    """Return the MLflow run with this run's key, made of its id and start: folder names repeat across machines."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None and experiment.lifecycle_stage != "active":
        client.restore_experiment(experiment.experiment_id)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    key = hashlib.sha256(f"{record.run_id} {record.started_at}".encode()).hexdigest()[:32]
    found = client.search_runs([experiment_id], f"tags.`ncdemo.key` = '{key}'", max_results=1)
    return found[0] if found else client.create_run(experiment_id, started_ms, {"ncdemo.key": key}, record.run_id)


def _rows(run_dir: Path, record: RunRecord) -> Iterator[Row]:
    """Yield every metric. Bench cells: bench/<engine>/<model>/c<concurrency>/<metric> (other loads in words), with the repeat as step."""
    for line in _lines(run_dir / "steps.jsonl"):
        yield from ((f"train/{name}", line[name], line["end_s"], line["step"]) for name in STEP_METRICS if line.get(name) is not None)
    for line in _lines(run_dir / "evals.jsonl"):
        at = line.pop("end_s"), line.pop("step")
        yield from ((f"eval/{name}", value, *at) for name, value in _numbers(line))
    ended_s = record.duration_s or 0.0
    for name, value in _numbers({"duration_s": record.duration_s, **(record.train.model_dump() if record.train else {})}):
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
    return ((key, float(value)) for key, value in _flat(fields) if isinstance(value, int | float))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; a list of plain values is one value, as JSON."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from _flat({str(index): inner for index, inner in enumerate(value)}, key)
    elif key:
        yield key, json.dumps(value) if isinstance(value, list) else value


def _safe(name: str) -> str:
    """Return a model's name as one part of a metric key: MLflow takes these characters, and a slash starts a new part."""
    return re.sub(r"[^\w.\-]", "_", name)[-100:]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON Lines file; a last line that a killed run left half written is dropped."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    yield from (json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n"))


def _read(path: Path, parse: Any) -> dict[str, Any]:
    return (parse(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(items, size)):
        yield batch


def main() -> None:
    try:
        print(export(Path(sys.argv[1]), os.environ["MLFLOW_TRACKING_URI"]))
    except Exception as error:  # MLflow, its store and its server raise of every kind; the caller shows one line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
