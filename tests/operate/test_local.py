"""Runs of this machine: what is said of real ones, also of one that was killed, and that the right process is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ncdemo.operate.local import read_job
from ncdemo.spec.run_folder import note_process, running_process

SPEC = """kind: bench
name: long
engines: [echo]
concurrency: [1]
repeats: 25
prompts: {count: 2000}
sampling: {max_new_tokens: 5}
telemetry: {sample_hz: 0.0, mlflow_uri: null}
"""


@pytest.fixture
def running(ncdemo: Any, tmp_path: Path, until: Any) -> Any:
    """A benchmark that runs for ten seconds, some of its cells done: its process, its folder's name, and its own pid."""
    (tmp_path / "long.yaml").write_text(SPEC)
    process = ncdemo.start("bench", "run", "-c", str(tmp_path / "long.yaml"))
    until(lambda: [1 for path in ncdemo.runs.glob("*/cells.jsonl") if len(path.read_text().splitlines()) > 2])
    folder = next(ncdemo.runs.iterdir())
    yield process, folder, json.loads((folder / ".process").read_text())["pid"]
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_a_run_is_followed_waited_for_and_stopped_in_good_order(ncdemo: Any, running: Any) -> None:
    process, folder, pid = running
    listed = json.loads(ncdemo.here("jobs", "ls", "--json"))
    assert [(job["name"], job["kind"], job["state"], job["place"]) for job in listed] == [
        (folder.name, "bench", "running", f"process {pid}")
    ]
    ncdemo.here("jobs", "wait", folder.name, "--timeout", "0.5", code=124)
    assert "has not ended in time" in ncdemo.err
    assert "--yes" in ncdemo.mistake("jobs", "cancel", folder.name)
    assert "is running, so it isn't started again" in ncdemo.mistake("jobs", "retry", folder.name)
    follower = ncdemo.start("jobs", "logs", folder.name, "--follow")
    waiter = ncdemo.start("jobs", "wait", folder.name)
    assert ncdemo("jobs", "cancel", folder.name, "--yes") == f"{folder.name}: interrupted\n"
    assert waiter.communicate(timeout=30)[0].startswith(f"{folder.name}: interrupted (stopped by SIGTERM")
    assert waiter.returncode == 75
    assert follower.communicate(timeout=30)[0] == (folder / "log.txt").read_text()
    process.communicate(timeout=30)
    assert process.returncode == 2
    assert "so there is nothing to cancel" in ncdemo.mistake("jobs", "cancel", folder.name, "--yes")


def test_a_killed_run_is_said_to_be_and_goes_on_where_it_was(ncdemo: Any, running: Any) -> None:
    process, folder, pid = running
    os.killpg(pid, signal.SIGKILL)
    process.communicate(timeout=30)
    cells = (folder / "cells.jsonl").read_text().splitlines()
    assert "killed" in ncdemo.here("jobs", "ls")
    assert "go on with: ncdemo jobs retry" in ncdemo.here("jobs", "wait", folder.name, code=137)
    assert "its process is gone" in ncdemo.mistake("jobs", "cancel", folder.name, "--yes") or "is killed" in ncdemo.err
    assert ncdemo("jobs", "retry", folder.name).strip().splitlines()[-1] == str(folder)
    assert (folder / "cells.jsonl").read_text().splitlines()[: len(cells) - 1] == cells[:-1]  # the last one may have been torn
    assert ncdemo.here("jobs", "wait", folder.name) == f"{folder.name}: finished\n"
    assert "is finished" in ncdemo.mistake("jobs", "retry", folder.name)
    assert ncdemo.here("jobs", "logs", folder.name, "--tail", "1").count("\n") == 1


def test_a_mistake_in_the_spec_is_exit_2_of_wait(ncdemo: Any, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(
        SPEC.replace("concurrency", "models: [{name: /nowhere}]\nconcurrency").replace("echo]", "transformers]")
    )
    ncdemo("bench", "run", "-c", str(tmp_path / "wrong.yaml"), code=2)
    name = next(ncdemo.runs.iterdir()).name
    assert "failed" in ncdemo.here("jobs", "ls")
    out = ncdemo.here("jobs", "wait", name, code=2)
    assert out.startswith(f"{name}: failed (")


def test_names_that_are_not_there(ncdemo: Any) -> None:
    assert "there are none" in ncdemo.mistake("jobs", "wait", "tune")
    (ncdemo.runs / "tune-1").mkdir(parents=True)
    (ncdemo.runs / "tune-1" / "spec.yaml").write_text("kind: train\n")
    (ncdemo.runs / "notes").mkdir()
    assert ncdemo.mistake("jobs", "logs", "tune").endswith("did you mean tune-1? See them with: ncdemo jobs ls")
    assert "has said nothing" in ncdemo.mistake("jobs", "logs", "tune-1")
    assert "no process is on record" in ncdemo.here("jobs", "ls")
    assert "no process is on record, so it isn't certain which process to end" in ncdemo.mistake("jobs", "cancel", "tune-1", "--yes")


def test_no_other_process_is_taken_for_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        note_process(folder, process.pid)
        assert running_process(folder) == process.pid
        assert read_job(folder, "run").state == "running"
        record = json.loads((folder / ".process").read_text())
        (folder / ".process").write_text(json.dumps(record | {"started": "1"}))
        assert running_process(folder) is None
        assert read_job(folder, "run").state == "killed"
        (folder / ".process").write_text(json.dumps(record | {"machine": "another"}))
        assert (read_job(folder, "run").state, read_job(folder, "run").detail[:41]) == (
            "unknown",
            "its process was started on another machin",
        )
        note_process(folder, process.pid)
        process.kill()
        time.sleep(0.2)
        assert running_process(folder) is None, "a process that nobody has waited for is gone all the same"
    (folder / "result.json").write_text('{"status": "failed", "reason": "out of memory", "kind": "train"}')
    assert read_job(folder, "run").detail == "out of memory"
    (folder / "result.json").write_text('{"status": "fin')
    assert read_job(folder, "run").state == "killed"


def test_parts_of_a_demo_and_a_log_that_is_torn(ncdemo: Any) -> None:
    part = ncdemo.runs / "demo-1" / "train"
    part.mkdir(parents=True)
    (part / "result.json").write_text('{"status": "finished", "kind": "train", "started_at": "2026-01-01T00:00:00.000+00:00"}')
    (part / "log.txt").write_bytes(b"one\n\xff\xfe\nthree")
    assert "demo-1/train  train  finished  2026-01-01 00:00:00Z" in ncdemo.here("jobs", "ls")
    assert ncdemo.here("jobs", "logs", "demo-1/train", "--tail", "1") == "three"
    assert ncdemo.here("jobs", "logs", "demo-1/train", "--follow").startswith("one\n")
