"""Workloads that were killed before they could tell of it: MLflow hears how they ended, and holds no job that is being stopped."""

import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

OPENS = """
import os, pathlib, signal, sys, time
from ncdemo.spec import BenchSpec, load_spec
from workloads.run import Run
folder = pathlib.Path(sys.argv[1])
Run(folder, load_spec(folder / "spec.yaml", BenchSpec))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("under way", flush=True)
END
"""
KILLED = OPENS.replace("END", "os.kill(os.getpid(), signal.SIGKILL)")
DEAF = OPENS.replace("END", "time.sleep(300)")


@pytest.fixture
def logged(jobs) -> Callable[[], list[tuple[str, str]]]:
    """Let jobs log to their folder's MLflow; return status and reason of its runs."""
    pytest.importorskip("sqlalchemy", reason="an SQLite tracking store needs sqlalchemy and alembic")
    jobs.write(telemetry={"sample_hz": 0.0, "mlflow_uri": "default"})

    def read() -> list[tuple[str, str]]:
        query = "select runs.status, tags.value from runs join tags using (run_uuid) where tags.key = 'reason'"
        store = sqlite3.connect(jobs.runs / "mlflow.db")
        try:
            return store.execute(query).fetchall()
        finally:
            store.close()

    return read


def until_under_way(process: subprocess.Popen) -> None:
    assert any(line == "under way\n" for line in process.stderr)


def test_a_workload_that_was_killed_is_failed_in_mlflow(jobs, logged: Callable) -> None:
    code, said = jobs.run(code=KILLED, MLFLOW_TRACKING_URI="")
    assert code == 1, said
    assert logged() == [("FAILED", jobs.result()["reason"])]
    assert "was ended by SIGKILL before it could say why" in jobs.result()["reason"]
    # The next attempt is the same run of MLflow.
    code, said = jobs.run(code=KILLED, MLFLOW_TRACKING_URI="")
    assert len(logged()) == 1, said


def test_a_workload_that_was_stopped_and_killed_is_killed_in_mlflow(jobs, logged: Callable) -> None:
    process = jobs.start(code=DEAF, MLFLOW_TRACKING_URI="", times={"STOP_S": 62.0, "UPLOAD_S": 60.0, "TELL_STOPPED_S": 55.0})
    until_under_way(process)
    process.terminate()
    _, said = process.communicate(timeout=90)
    assert process.returncode == 75
    assert logged() == [("KILLED", jobs.result()["reason"])], said


def test_a_server_that_never_answers_holds_no_job_that_is_stopped(jobs, held: Callable[[Path], dict]) -> None:
    jobs.write(telemetry={"sample_hz": 0.0, "mlflow_uri": "default"})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = jobs.start(code=DEAF, MLFLOW_TRACKING_URI=uri, times={"STOP_S": 5.0, "UPLOAD_S": 3.0})
        until_under_way(process)
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert time.monotonic() - began_s < 8
    assert "nobody heard in time how it ended; send it later with: ncdemo metrics export" in said
    assert held(jobs.copy)["result.json"] == held(jobs.folder)["result.json"]
