"""A run directory in MLflow: what arrives, twice, and what happens when there is no server."""

import importlib.util
import json
import os
import shlex
import socket
import subprocess
import sys
import time

import pytest

from ncdemo.spec import BenchSpec, TrainSpec, dump_spec
from ncdemo.spec.result import EvalRecord, RunRecord, StepRecord
from ncdemo.spec.result_bench import BenchResult, Cell, Distribution, SearchResult
from workloads.metrics.mlflow_log import log_run, resolve_uri

needs_sql = pytest.mark.skipif(
    not (importlib.util.find_spec("sqlalchemy") and importlib.util.find_spec("alembic")),
    reason="an SQLite tracking store needs sqlalchemy and alembic",
)
READ_BACK = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
found = client.search_runs([client.get_experiment_by_name("ncdemo").experiment_id])
run = found[0]
history = client.get_metric_history(run.info.run_id, "train/loss")
artifacts = {a.path: open(client.download_artifacts(run.info.run_id, a.path)).read() for a in client.list_artifacts(run.info.run_id)}
print(json.dumps([len(found), dict(run.info), run.data.to_dictionary(), [(m.step, m.value, m.timestamp) for m in history], artifacts]))
"""
READ_BENCH = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
run = client.search_runs([client.get_experiment_by_name("ncdemo").experiment_id])[0]
histories = {key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
print(json.dumps([run.data.to_dictionary(), histories, [a.path for a in client.list_artifacts(run.info.run_id)]]))
"""


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "runs" / "it's run 1"
    folder.mkdir(parents=True)
    spec = TrainSpec.model_validate({"telemetry": {"mlflow_uri": "http://me:canary-7331@host"}})
    (folder / "spec.yaml").write_text(dump_spec(spec))
    (folder / "environment.json").write_text(json.dumps({"git_commit": "feed", "git_dirty": False}))
    step = {"step_time_s": 0.5, "learning_rate": 1e-3, "grad_norm": 1, "tokens": 9, "target_tokens": 9, "examples": 1, "tokens_per_s": 18}
    steps = [StepRecord(step=i, end_s=i / 2, loss=3 - i / 1000, **step).model_dump_json() + "\n" for i in range(1, 302)]
    (folder / "steps.jsonl").write_text("".join(steps) + '{"step": 302, "end')
    evaluation = EvalRecord(step=300, end_s=151, loss=2, perplexity=7.4, token_accuracy=0.5, target_tokens=9, eval_time_s=1)
    (folder / "evals.jsonl").write_text(evaluation.model_dump_json() + "\n")
    ttft = Distribution(count=3, mean=0.2, p50=0.25, min=0.1, max=0.3)
    cell = Cell(engine="echo", model="/models/a b", concurrency=8, repeat=1, requests=3, failed=0, equal_output_tokens=True, ttft_s=ttft,
                usd_per_mtok_spot=(0.5, 0.75))  # fmt: skip
    search = SearchResult(engine="echo", model="m", lengths="8 to 2 tokens", max_goodput_rate_rps=4.0, runs=3, reason="found")
    bench = BenchResult(cells=[cell], searches=[search], prompt_tokens=3, prompt_hash="0", engine_versions={}, load_time_s={})
    ended = {"status": "failed", "reason": "out of memory; lower micro_batch_size", "duration_s": 152.5, "bench": bench}
    record = RunRecord(
        kind="train", run_id=folder.name, name="demo", spec_hash=spec.spec_hash(), started_at="2026-11-24T01:00:00.000+00:00", **ended
    )
    (folder / "result.json").write_text(record.model_dump_json())
    return folder


@needs_sql
def test_sqlite_round_trip_is_idempotent(run_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    uri = resolve_uri("default", run_dir.parent)
    assert uri == f"sqlite:///{run_dir.parent}/mlflow.db"
    run_id = log_run(run_dir, uri)
    assert run_id
    assert log_run(run_dir, uri) == run_id
    command = [sys.executable, "-W", "ignore", "-c", READ_BACK, uri]
    read = subprocess.run(command, cwd=run_dir.parent, capture_output=True, text=True, check=True).stdout
    count, info, data, history, artifacts = json.loads(read)
    assert count == 1
    assert info["run_id"] == run_id
    assert (info["run_name"], info["status"], info["end_time"] - info["start_time"]) == (run_dir.name, "FAILED", 152500)
    assert sorted(map(tuple, history)) == [(i, 3 - i / 1000, info["start_time"] + i * 500) for i in range(1, 302)]
    assert data["metrics"]["eval/perplexity"] == 7.4
    assert data["metrics"]["bench/echo/_models_a_b/c8/ttft_s.p50"] == 0.25
    assert data["metrics"]["bench/echo/_models_a_b/c8/equal_output_tokens"] == 1
    assert data["metrics"]["bench/echo/_models_a_b/c8/usd_per_mtok_spot_high"] == 0.75
    assert data["metrics"]["bench/echo/m/search_8_to_2_tokens/max_goodput_rate_rps"] == 4
    assert "bench/echo/m/search_8_to_2_tokens/above_rps" not in data["metrics"]
    assert "bench/echo/_models_a_b/c8/ttft_s.p99" not in data["metrics"], "not measured is not logged"
    assert data["params"]["train.micro_batch_size"] == "1"
    assert data["params"]["telemetry.mlflow_uri"] == "http://***@host"
    assert data["tags"]["reason"] == "out of memory; lower micro_batch_size"
    assert data["tags"]["git_commit"] == "feed"
    assert set(artifacts) == {"result.json", "spec.yaml", "environment.json", "steps.jsonl", "evals.jsonl"}
    assert "canary" not in read
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"], "nothing beside the runs"


@needs_sql
def test_a_real_benchmark_arrives_cell_by_cell(tmp_path):
    """Two loads, twice: what result.json has of each cell is its metric, with the repeat as step."""
    pytest.importorskip("transformers", reason="needs the train extra")
    spec = {
        "engines": ["echo"], "concurrency": [1, 2], "repeats": 2, "prompts": {"count": 2}, "sampling": {"max_new_tokens": 3},
        "telemetry": {"sample_hz": 0.0, "mlflow_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
    }  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(BenchSpec.model_validate_json(json.dumps(spec))))
    done = subprocess.run([sys.executable, "-m", "workloads.inference.bench", "--run", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-W", "ignore", "-c", READ_BENCH, spec["telemetry"]["mlflow_uri"]]
    data, histories, artifacts = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert len(record.bench.cells) == 4
    for load in (1, 2):
        cells = [c for c in record.bench.cells if c.concurrency == load]
        for name in ("output_tokens_per_s", "requests", "failed", "window_s"):
            (key,) = [k for k in histories if k.startswith("bench/echo/") and k.endswith(f"/c{load}/{name}")]
            assert [(step, value) for step, value, _ in sorted(histories[key])] == [(c.repeat, float(getattr(c, name))) for c in cells]
            times = [time_ms for _, _, time_ms in sorted(histories[key])]
            assert times[0] < times[1], "each at its own time"
    assert data["params"]["concurrency"] == "[1, 2]"
    assert data["params"]["prompts.count"] == "2"
    assert data["tags"]["prompt_hash"] == record.bench.prompt_hash
    assert data["tags"]["engine.echo"] == record.bench.engine_versions["echo"]
    assert any(key.startswith("bench/load_time_s/echo") for key in histories)
    assert sorted(artifacts) == ["cells.jsonl", "environment.json", "result.json", "spec.yaml"]


@pytest.mark.skipif(importlib.util.find_spec("sqlalchemy") is not None, reason="sqlalchemy is there")
def test_sqlite_without_its_packages_says_what_to_install(run_dir, caplog):
    assert log_run(run_dir, f"sqlite:///{run_dir.parent}/mlflow.db") is None
    assert "install sqlalchemy and alembic, or set telemetry.mlflow_uri" in caplog.text


def test_a_server_that_is_gone_is_one_line(run_dir, caplog):
    assert log_run(run_dir, "http://me:canary-7331@127.0.0.1:9") is None
    (line,) = caplog.messages
    assert line.startswith(
        f"MLflow at http://***@127.0.0.1:9: {run_dir} was not exported: the server does not answer (Connection refused); "
    )
    assert line.endswith(f"check that address, then: ncdemo metrics export {shlex.quote(str(run_dir))} --mlflow http://***@127.0.0.1:9")


def test_a_server_that_never_answers_is_bounded(run_dir, caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        assert log_run(run_dir, f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=2.5) is None
    assert time.monotonic() - began_s < 4
    assert "it took longer than 2.5 s" in caplog.text


def test_mlflow_that_is_not_installed(run_dir, tmp_path, monkeypatch, caplog):
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError(\"No module named 'mlflow'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert log_run(run_dir, "http://127.0.0.1:9") is None
    assert "No module named 'mlflow'; install mlflow-skinny, or set telemetry.mlflow_uri to null" in caplog.text


def test_no_run_there(tmp_path):
    done = subprocess.run([sys.executable, "-m", "workloads.metrics.mlflow_log", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path} was not exported: there is no result.json in it; give the folder of a run" in done.stderr


def test_resolve_uri(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert resolve_uri("default", tmp_path) == "http://server"
    assert resolve_uri("http://other", tmp_path) == "http://other"
    assert resolve_uri(None, tmp_path) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert resolve_uri("default", tmp_path) == f"sqlite:///{tmp_path}{os.sep}mlflow.db"
