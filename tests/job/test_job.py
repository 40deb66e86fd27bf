"""The job as a node runs it: real processes, real signals, and what is left of a run whatever happened to it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WRITES = """
import json, pathlib, sys, time
from ncdemo.spec import BenchSpec, load_spec
from workloads.run import main_guard, open_run
folder = pathlib.Path(sys.argv[1])
def main():
    with open_run(folder, load_spec(folder / "spec.yaml", BenchSpec)):
        (folder / "requests.jsonl").write_text("{}\\n")
        print("under way", flush=True)
        BODY
main_guard(main)
"""
WAITS = WRITES.replace("BODY", "time.sleep(300)")
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("under way", flush=True)
time.sleep(300)
"""
# A launcher that dies of a signal at once, and a rank in a session of its own that it doesn't tell.
ORPHAN = """
import pathlib, subprocess, sys, time
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
(pathlib.Path(sys.argv[1]) / "rank.pid").write_text(str(rank.pid))
print("under way", flush=True)
END
"""


def until_under_way(process: subprocess.Popen) -> None:
    for line in process.stderr:
        if line == "under way\n":
            return
    raise AssertionError("the workload never said that it is under way")


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0]
    except OSError:
        return False


@pytest.mark.usefixtures("embedded")
def test_a_benchmark_from_start_to_copy_and_never_twice(jobs, held: Callable) -> None:
    code, said = jobs.run()
    assert code == 0, said
    assert jobs.result()["status"] == "finished"
    assert held(jobs.copy) == held(jobs.folder)
    records = {"environment.json", "result.json", "cells.jsonl", "requests.jsonl"}
    assert set(held(jobs.copy)) == {"spec.yaml", "run.key", "log.txt", *records}
    log = (jobs.folder / "log.txt").read_text()
    assert "ncdemo.bench: echo" in log, "the workload's own words"
    assert "ncdemo.bench: echo" in said
    before = held(jobs.folder)

    # The copy says that it is finished.
    code, said = jobs.run()
    assert (code, "finished and isn't run again" in said) == (0, True)
    assert held(jobs.folder) == before

    # A new node knows only the copy.
    shutil.rmtree(jobs.runs)
    assert jobs.run()[0] == 0
    assert not jobs.runs.exists()

    # A copy that never came to be is made up for.
    shutil.copytree(jobs.copy, jobs.folder)
    shutil.rmtree(jobs.copy)
    assert jobs.run()[0] == 0
    assert held(jobs.copy) == held(jobs.folder) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_and_the_evidence_is_copied(jobs, held: Callable, number: signal.Signals) -> None:
    process = jobs.start(code=WAITS)
    until_under_way(process)
    start = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 75, said
    assert time.monotonic() - start < 25
    assert jobs.result()["status"] == "interrupted"
    assert held(jobs.copy) == held(jobs.folder)
    assert "requests.jsonl" in held(jobs.copy)


def test_an_interrupted_job_starts_again_in_a_clean_folder(jobs, held: Callable) -> None:
    process = jobs.start(code=WAITS)
    until_under_way(process)
    process.terminate()
    process.communicate()
    (jobs.folder / "evals.jsonl").write_text("of the attempt before\n")
    code, said = jobs.run(code=WRITES.replace("BODY", "pass"))
    assert code == 0, said
    assert "left interrupted" in said
    assert jobs.result()["status"] == "finished"
    assert not (jobs.folder / "evals.jsonl").exists()
    assert (jobs.folder / "log.txt").read_text().count("\nunder way\n") == 2
    assert held(jobs.copy) == held(jobs.folder)


def test_a_workload_that_is_deaf_to_signals_is_killed_in_time_and_recorded(jobs, held: Callable) -> None:
    process = jobs.start(code=DEAF, times={"STOP_S": 3.0, "UPLOAD_S": 2.0})
    until_under_way(process)
    start = time.monotonic()
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 75
    assert time.monotonic() - start < 4
    assert "killed: it didn't end in time" in said
    assert jobs.result()["status"] == "interrupted"
    assert "was ended by SIGKILL after SIGTERM before it could say why" in jobs.result()["reason"]
    assert held(jobs.copy) == held(jobs.folder)


def test_a_second_signal_ends_at_once(jobs) -> None:
    process = jobs.start(code=DEAF)
    until_under_way(process)
    start = time.monotonic()
    process.terminate()
    time.sleep(0.5)
    process.terminate()
    process.communicate()
    assert process.returncode == 75
    assert time.monotonic() - start < 3
    assert jobs.result()["status"] == "interrupted"


@pytest.mark.parametrize("end", ["time.sleep(300)", "sys.exit(3)"], ids=["told to end", "launcher ended"])
def test_nothing_that_a_workload_started_outlives_the_job(jobs, end: str) -> None:
    process = jobs.start(code=ORPHAN.replace("END", end))
    until_under_way(process)
    pid = int((jobs.folder / "rank.pid").read_text())
    if "sleep" in end:
        process.terminate()  # the launcher goes without a word to its rank
    process.communicate(timeout=10)
    assert process.returncode == (75 if "sleep" in end else 1)
    assert not alive(pid)


def test_a_workload_that_is_killed_has_a_record_that_says_so(jobs, held: Callable) -> None:
    code, said = jobs.run(code=WRITES.replace("BODY", "import os; os.kill(os.getpid(), 9)"))
    assert code == 1, said
    assert jobs.result()["status"] == "failed"
    assert jobs.result()["reason"] == "the workload was ended by SIGKILL before it could say why; log.txt has its last words"
    assert held(jobs.copy) == held(jobs.folder)


def test_a_crash_is_a_failure_and_its_traceback_is_kept(jobs) -> None:
    code, said = jobs.run(code=WRITES.replace("BODY", "raise RuntimeError('the disk is on fire')"))
    assert code == 1
    assert "RuntimeError: the disk is on fire" in said
    assert "RuntimeError: the disk is on fire" in (jobs.copy / "log.txt").read_text()
    assert jobs.result()["reason"] == "RuntimeError: the disk is on fire"


def test_a_mistake_that_only_the_workload_sees_is_never_worth_a_retry(jobs) -> None:
    code, _ = jobs.run(code=WRITES.replace("BODY", "from ncdemo.spec import SpecError; raise SpecError('model.name: no such model')"))
    assert code == 2
    assert jobs.result()["reason"] == "model.name: no such model"


def test_a_launcher_cannot_hide_a_mistake(jobs, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="needs the train extra")
    jobs.spec.write_text("kind: train\nname: t\nmodel: {name: /nowhere/model}\ntelemetry: {sample_hz: 0.0, mlflow_uri: null}\n")
    code, said = jobs.run()
    assert code == 2, said
    assert "model.name = '/nowhere/model': cannot be loaded" in jobs.result()["reason"]


def test_training_on_two_ranks_is_interrupted_in_good_order(jobs, held: Callable, tiny_model: Path) -> None:
    """The ranks are in sessions of their own, and rank 0 loses its peer while it writes how it ended."""
    jobs.spec.write_text(
        f"kind: train\nmodel: {{name: {tiny_model}}}\ndata: {{train_examples: 20, eval_examples: 2, max_seq_len: 128}}\n"
        "train: {max_steps: 100000, processes: 2}\neval: {before: false}\ntelemetry: {sample_hz: 2.0, mlflow_uri: null}\n"
    )
    process = jobs.start()
    end = time.monotonic() + 100
    while not (jobs.folder / "steps.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.1)
    start = time.monotonic()
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert time.monotonic() - start < 20
    assert jobs.result()["status"] == "interrupted"
    assert jobs.result()["reason"].startswith("stopped by SIGTERM")
    assert held(jobs.copy) == held(jobs.folder)
    alive = subprocess.run(["pgrep", "-f", str(jobs.folder)], capture_output=True, text=True).stdout.split()
    assert alive == []


def test_a_log_that_nobody_reads_stops_nothing(jobs) -> None:
    process = jobs.start(code=WRITES.replace("BODY", "print('x' * 1_000_000)"))
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert len((jobs.folder / "log.txt").read_bytes()) > 1_000_000


def test_a_benchmark_runs_on_the_first_node_alone(jobs) -> None:
    code, said = jobs.run(NCDEMO_NODES="2", JOB_COMPLETION_INDEX="1")
    assert code == 0
    assert "a benchmark runs on node 0 alone: nothing to do on node 1" in said
    assert not jobs.runs.exists()


def test_results_of_another_spec_are_never_replaced(jobs, held: Callable) -> None:
    assert jobs.run(code=WRITES.replace("BODY", "pass"))[0] == 0
    before = held(jobs.copy)
    jobs.write(repeats=7)
    for _ in ("the copy", "the folder"):
        code, said = jobs.run(code=WRITES.replace("BODY", "pass"))
        assert code == 2
        assert "holds a finished run of another spec" in said
        assert "set NCDEMO_JOB to another name" in said
        assert held(jobs.folder) == before
        shutil.rmtree(jobs.copy, ignore_errors=True)


@pytest.mark.parametrize(
    ("text", "env", "message"),
    [
        (None, {}, r"spec\.yaml: no such file"),
        ("", {}, r"kind = null: a job runs kind: train or bench; write it at the top"),
        ("kind: stack\n", {}, r"kind = 'stack': a job runs kind: train or bench"),
        ("kind: [bench]\n", {}, r"kind = \['bench'\]: a job runs"),
        ("kind: bench\nrepeat: 2\n", {}, r"spec\.yaml:2: repeat.*did you mean repeats"),
        ("kind: bench\n\trepeats: 2\n", {}, r"not valid YAML"),
        ("kind: bench\n", {"NCDEMO_NODES": "two"}, r"NCDEMO_NODES = 'two': must be a whole number"),
        ("kind: bench\n", {"NCDEMO_NODES": "0"}, r"NCDEMO_NODES = 0: must be at least 1"),
        ("kind: bench\n", {"NCDEMO_NODES": "2", "NCDEMO_NODE_RANK": "2"}, r"NCDEMO_NODE_RANK = 2: must be below NCDEMO_NODES = 2"),
        ("kind: bench\n", {"JOB_COMPLETION_INDEX": "1"}, r"JOB_COMPLETION_INDEX = 1: must be below NCDEMO_NODES = 1"),
        ("kind: bench\n", {"NCDEMO_JOB": "../x"}, r"NCDEMO_JOB = '\.\./x': must be the name of a folder"),
        (
            "kind: bench\n",
            {"uri": "nope://x/y"},
            r"NCDEMO_RESULTS_URI = nope://x/y: ValueError: Protocol not known: nope; give e\.g\. az://",
        ),
        ("kind: bench\n", {"uri": "az://metrics/jobs"}, r"the storage account is missing; set NCDEMO_STORAGE_ACCOUNT to its name"),
    ],
)
def test_mistakes_are_one_line_and_start_nothing(jobs, text: str | None, env: dict, message: str) -> None:
    import re

    jobs.spec.unlink()
    if text is not None:
        jobs.spec.write_text(text)
    code, said = jobs.run(**env, AZURE_STORAGE_CONNECTION_STRING="")
    assert code == 2
    assert re.match(rf"Error: .*{message}", said), said
    assert len(said.splitlines()) == 1
    assert not jobs.runs.exists()
    assert os.listdir(jobs.runs.parent) in ([], ["spec.yaml"])
