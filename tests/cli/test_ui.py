"""ncdemo ui: MLflow's real server on the runs of a folder, at this machine alone, gone with the command."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-m", "ncdemo", "ui"]
NEEDS_SERVER = pytest.mark.skipif(
    importlib.util.find_spec("flask") is None,
    reason="MLflow's server isn't installed: scripts/setup_env.sh --extra mlflow --venv .venv-mlflow",
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def asked(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=20) as answer:
        return json.load(answer)


@NEEDS_SERVER
def test_runs_and_their_artifacts_are_served_and_the_server_ends_with_the_command(train_run, tmp_path: Path) -> None:
    """One test for all of it: each start of MLflow takes ten seconds."""
    from workloads.metrics.mlflow_log import log_run

    runs, port = tmp_path / "runs", free_port()
    before = log_run(train_run("before"), f"sqlite:///{runs / 'mlflow.db'}")
    assert before
    env = {**os.environ, "NCDEMO_RUNS": str(runs), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([*COMMAND, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True) as shown:
        try:
            url = shown.stdout.readline().strip()
            assert url == f"http://127.0.0.1:{port}", shown.stderr.read() if shown.poll() is not None else ""
            family = [psutil.Process(shown.pid), *psutil.Process(shown.pid).children(recursive=True)]
            listening = {c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
            assert listening == {"127.0.0.1"}
            assert len(family) > 1
            after = log_run(train_run("after", seed=2), url)
            assert after
            found = asked(f"{url}/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=ncdemo")["experiment"]
            listed = asked(f"{url}/ajax-api/2.0/mlflow/runs/search", {"experiment_ids": [found["experiment_id"]]})["runs"]
            assert {run["info"]["run_id"] for run in listed} == {before, after}
            for run_id in (before, after):
                assert asked(f"{url}/get-artifact?path=result.json&run_uuid={run_id}")["status"] == "finished"
            taken = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, env=env, timeout=60)
            assert (taken.returncode, taken.stdout) == (2, "")
            assert taken.stderr == f"Error: --port {port}: Address already in use; give another, e.g. --port {port % 65535 + 1}\n"
        finally:
            shown.send_signal(signal.SIGINT)
        assert shown.wait(40) == 130
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(importlib.util.find_spec("flask") is not None, reason="MLflow's server is installed here")
def test_without_the_server_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, env={**os.environ, "NCDEMO_RUNS": str(tmp_path / "runs")}, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Error: MLflow's server isn't installed; run scripts/setup_env.sh --extra mlflow --venv .venv-mlflow, then"
    )
    assert not (tmp_path / "runs").exists()
