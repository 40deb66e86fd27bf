"""What of a run directory becomes what in MLflow: spec to params, records to metrics and artifacts, how it ended to tags.

Started by mlflow_log.py with MLFLOW_TRACKING_URI set; prints JSON: the MLflow run's id and which files were left out, or one line
that says what is wrong.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python -m workloads.metrics.mlflow_export RUN_DIR
"""

import datetime
import json
import math
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ncdemo.spec.ledger import CELLS_FILE
from ncdemo.spec.result import RunRecord
from ncdemo.spec.run_folder import ENGINES_FILE, LOG_FILE, RESULT_FILE, SPEC
from workloads.metrics.mlflow_key import mlflow_key
from workloads.metrics.mlflow_rows import GROUPS, Row, flat, rows
from workloads.metrics.redact import redact

EXPERIMENT = "ncdemo"
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
ARTIFACTS = (RESULT_FILE, SPEC, "environment.json", LOG_FILE, "steps.jsonl", "evals.jsonl", CELLS_FILE, ENGINES_FILE)
"""Not samples.jsonl nor requests.jsonl: they are long, and the latter holds what was asked and answered."""
ARTIFACT_BYTES = 32 << 20
"""A longer file is left out, and that is said."""


def export(run_dir: Path, uri: str) -> dict[str, Any]:
    """Create or update the MLflow run of this directory; return its `run_id` and which files were `left_out`."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    if uri.startswith("sqlite"):
        # Without them MLflow says that it doesn't know the address.
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
    record = RunRecord.model_validate_json((run_dir / RESULT_FILE).read_text(encoding="utf-8"))
    environment = _read(run_dir / "environment.json", json.loads)
    spec = _read(run_dir / SPEC, yaml.safe_load)
    client = MlflowClient(tracking_uri=uri)
    run, outdated = _find_or_create(client, run_dir, record)
    run_id, started_ms = str(run.info.run_id), run.info.start_time

    # MLflow refuses to change a param, and equal metric points are stored once: so a second export is harmless.
    params = {key: redact(str(value)) for key, value in flat(spec) if key not in run.data.params}
    for batch in _batches(iter(params.items()), 100):
        client.log_batch(run_id, params=[Param(key, value) for key, value in batch])
    for batch in _batches(rows(run_dir, record), 1000):
        client.log_batch(run_id, metrics=[Metric(key, value, _time_ms(started_ms, s), step) for key, value, s, step in batch])
    left_out = _log_artifacts(client, run_id, run_dir)
    tags = {"status": record.status, "reason": record.reason, "kind": record.kind, "name": record.name, "spec_hash": record.spec_hash}
    tags |= {"git_commit": environment.get("git_commit"), "git_dirty": environment.get("git_dirty")}
    if record.bench:
        tags |= {
            "prompt_hash": record.bench.prompt_hash,
            **{f"engine.{name}": version for name, version in record.bench.engine_versions.items()},
        }
    tags["left_out"] = ", ".join(left_out) or None
    gone = [key for key in ("reason", "left_out") if tags[key] is None and key in run.data.tags]
    for key in gone:  # said of an attempt before
        client.delete_tag(run_id, key)
    client.log_batch(run_id, tags=[RunTag(key, redact(str(value))) for key, value in tags.items() if value is not None])
    if record.status == "running":
        client.update_run(run_id, status="RUNNING")
    else:
        ended_ms = None if record.duration_s is None else _time_ms(started_ms, record.duration_s)
        client.set_terminated(run_id, STATUS[record.status], ended_ms)
    for old in outdated:
        client.delete_run(old.info.run_id)
    return {"run_id": run_id, "left_out": left_out}


def _find_or_create(client: Any, run_dir: Path, record: RunRecord) -> tuple[Any, list[Any]]:
    """Return this run's MLflow run, and those that are to make room for it.

    A run that went back to a checkpoint has steps in MLflow that came again since. MLflow can't take points back, so a new run takes the
    place of one that holds such; except of a finished one, which is another run of the same name.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None and experiment.lifecycle_stage != "active":
        client.restore_experiment(experiment.experiment_id)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    key = mlflow_key(run_dir, record)
    found = client.search_runs([experiment_id], f"tags.`ncdemo.key` = '{key}'", max_results=100)
    same = next((run for run in found if _agrees(run, rows(run_dir, record))), None)
    outdated = [run for run in found if run is not same and run.info.status != "FINISHED"]
    if same is None:
        # One clock for all attempts, from the first one's start: the time between two doesn't count, as in the run's own stamps.
        start_ms = min((run.info.start_time for run in outdated), default=_start_ms(record))
        kept = outdated[0].data.tags if outdated else {}
        same = client.create_run(experiment_id, start_ms, {**kept, "ncdemo.key": key}, record.run_id)
    return same, outdated


def _agrees(run: Any, ours: Iterator[Row]) -> bool:
    """Say whether the newest point that an MLflow run has of each of our metrics is still a point of this run."""
    points = {point.key: (_stored(point.value), point.timestamp, point.step) for point in run.data.to_proto().metrics}
    logged = {key: point for key, point in points.items() if key.startswith(GROUPS)}
    for key, value, seconds, step in ours:
        if not logged:
            break
        if logged.get(key) == (_stored(value), _time_ms(run.info.start_time, seconds), step):
            del logged[key]
    return not logged


def _stored(value: float) -> float | None:
    """Return a value as MLflow gives it back, but None for what is no number, which equals nothing."""
    return None if math.isnan(value) else max(-sys.float_info.max, min(value, sys.float_info.max))


def _log_artifacts(client: Any, run_id: str, run_dir: Path) -> list[str]:
    """Log the records and the log as text without secrets; return which were too long."""
    there = [run_dir / name for name in ARTIFACTS if (run_dir / name).is_file()]
    left_out = [path for path in there if path.stat().st_size > ARTIFACT_BYTES]
    for path in there:
        if path not in left_out:
            client.log_text(run_id, redact(path.read_text(encoding="utf-8", errors="replace")), path.name)
    return [path.name for path in left_out]


def _start_ms(record: RunRecord) -> int:
    return round(datetime.datetime.fromisoformat(record.started_at).timestamp() * 1000)


def _time_ms(started_ms: int, seconds: float) -> int:
    return started_ms + round(1000 * seconds)


def _read(path: Path, parse: Any) -> dict[str, Any]:
    return (parse(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(items, size)):
        yield batch


def main() -> None:
    try:
        print(json.dumps(export(Path(sys.argv[1]), os.environ["MLFLOW_TRACKING_URI"])))
    except Exception as error:  # MLflow, its store and its server raise of every kind; the caller shows one line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
