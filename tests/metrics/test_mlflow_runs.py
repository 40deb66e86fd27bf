"""What a run leaves in MLflow: files and weights by download, and one MLflow run over all attempts. `make test-ui` asks a real server."""

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ncdemo.spec import TrainSpec, dump_spec
from ncdemo.spec.result import EvalRecord, RunRecord, StepRecord
from workloads.attempt import begin
from workloads.metrics import mlflow_export
from workloads.metrics.mlflow_log import log_model, log_run
from workloads.run import Run

SPEC = TrainSpec.model_validate({"telemetry": {"mlflow_uri": None, "sample_hz": 0.0}})
TOKEN = "hf_" + "Canary7331" * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run whose name no other test has."""
    return tmp_path / f"run-{secrets.token_hex(4)}"


def attempt(folder: Path, first: int, last: int, status: str = "interrupted", *, clock_s: float = 0.0, evals: tuple[int, ...] = ()) -> Run:
    """Make steps of an attempt, each half a second long, as a training run writes them; steps before the first stay."""
    if not (folder / "spec.yaml").exists():
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text(dump_spec(SPEC))
    run = Run(folder, SPEC, clock_s)
    kept = (folder / "steps.jsonl").read_text().splitlines(keepends=True)[: first - 1] if (folder / "steps.jsonl").exists() else []
    (folder / "steps.jsonl").write_text("".join(kept))
    for step in range(first, last + 1):
        end_s = clock_s + (step - first + 1) / 2
        run.append("steps.jsonl", StepRecord(step=step, end_s=end_s, step_time_s=0.5, loss=3 - step / 100, learning_rate=1e-3, grad_norm=1,
                                             tokens=90 + step, target_tokens=40, examples=1, tokens_per_s=180, mfu=0.25))  # fmt: skip
        if step in evals:
            run.append(
                "evals.jsonl",
                EvalRecord(step=step, end_s=end_s, loss=2, perplexity=7.4, token_accuracy=0.5, target_tokens=9, eval_time_s=1),
            )
    run.close(status, None if status == "finished" else "for the test")
    return run


def begun(folder: Path) -> None:
    """Begin an attempt as a job does, which writes its own words to the folder's log until it ends."""
    before = list(logging.getLogger().handlers)
    begin(folder, SPEC)
    for handler in set(logging.getLogger().handlers) - set(before):
        logging.getLogger().removeHandler(handler)
        handler.close()


def test_records_log_and_weights_can_be_downloaded(tracking, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    attempt(folder, 1, 3, "finished", evals=(3,))
    said = f"fetched https://me:Canary7331@host/x with {TOKEN}\nAuthorization: Bearer {'Canary7331' * 3}\n"
    (folder / "log.txt").write_text(said)
    (folder / "engines.jsonl").write_text(
        '{"uri":"http://host","by":"Canary7331","sig":"https://h/?sig=Canary7331","n":1}\n'.replace("Canary7331", "x@y", 1)
    )
    (folder / "requests.jsonl").write_text("{}\n")
    (folder / "samples.jsonl").write_text("{}\n")
    weights = {"adapter/adapter.safetensors": b"\x00\xffadapter", "model/model.safetensors": b"\x00\xffmodel", "model/deep/a.json": b"{}"}
    for name, content in weights.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "model" / "half.tmp").write_bytes(b"half")
    run_id = log_run(folder, tracking.uri)
    assert run_id, caplog.text
    assert log_model(folder, tracking.uri, run_id, "adapter")
    records = {"result.json", "spec.yaml", "log.txt", "steps.jsonl", "evals.jsonl", "engines.jsonl"}
    (run,) = tracking.read(folder.name)
    assert set(run["artifacts"]) == records | {"model/adapter/adapter.safetensors"}
    assert run["artifacts"]["steps.jsonl"] == (folder / "steps.jsonl").read_text()
    assert run["artifacts"]["log.txt"] == "fetched https://***@host/x with ***\nAuthorization: Bearer ***\n"
    assert json.loads(run["artifacts"]["engines.jsonl"]) == {"uri": "http://host", "by": "x@y", "sig": "https://h/?sig=***", "n": 1}
    assert [value for _, value, _ in run["history"]["train/tokens"]] == [91, 92, 93]
    assert [value for _, value, _ in run["history"]["train/target_tokens"]] == [40] * 3
    assert [value for _, value, _ in run["history"]["train/mfu"]] == [0.25] * 3
    if tracking.blobs:
        held = {name: content for name, content in tracking.blobs().items() if f"/{run_id}/" in name}
        assert all(name.startswith("artifacts/") for name in held), "below the destination's path"
        (adapter,) = [content for name, content in held.items() if name.endswith(f"{run_id}/artifacts/model/adapter/adapter.safetensors")]
        assert adapter == weights["adapter/adapter.safetensors"]

    assert log_model(folder, tracking.uri, run_id, "all")
    (run,) = tracking.read(folder.name)
    models = {name for name in run["artifacts"] if name.startswith("model/")}
    assert models == {"model/adapter/adapter.safetensors", "model/model.safetensors", "model/deep/a.json"}


@pytest.mark.parametrize("which", ["none", "adapter", "all"])
def test_a_run_without_weights_asks_nobody(folder: Path, which: str) -> None:
    attempt(folder, 1, 1, "finished")
    assert log_model(folder, "http://127.0.0.1:9", "id", which)


def test_a_file_that_is_too_long_is_left_out_and_said(tracking, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    attempt(folder, 1, 1)
    with (folder / "log.txt").open("wb") as log:
        log.truncate(mlflow_export.ARTIFACT_BYTES + 1)
    assert log_run(folder, tracking.uri)
    assert f"{folder}/log.txt is too long and was left out" in caplog.text
    (run,) = tracking.read(folder.name)
    assert "log.txt" not in run["artifacts"]
    assert run["tags"]["left_out"] == "log.txt"
    (folder / "log.txt").write_text("short")
    tracking.export(folder)
    (run,) = tracking.read(folder.name)
    assert run["artifacts"]["log.txt"] == "short"
    assert "left_out" not in run["tags"]


def points(run: dict, key: str) -> list[tuple[int, int]]:
    """Return step and milliseconds since the run's start of each point."""
    return [(step, time_ms - run["info"]["start_time"]) for step, _, time_ms in run["history"][key]]


def test_an_interrupted_run_that_goes_on_is_one_run(tracking, folder: Path) -> None:
    """The second attempt's started_at is its own: it began after a pause."""
    attempt(folder, 1, 4, evals=(2,))
    first = tracking.export(folder)
    (run,) = tracking.read(folder.name)
    assert (run["info"]["status"], run["tags"]["reason"]) == ("KILLED", "for the test")
    time.sleep(0.3)
    attempt(folder, 5, 6, "finished", clock_s=2.0)
    assert tracking.export(folder) == first
    assert tracking.export(folder) == first
    (run,) = tracking.read(folder.name)
    assert (run["info"]["status"], run["tags"]["status"]) == ("FINISHED", "finished")
    assert "reason" not in run["tags"]
    assert points(run, "train/loss") == [(step, 500 * step) for step in range(1, 7)]
    assert points(run, "eval/loss") == [(2, 1000)]
    assert len(run["history"]["result/duration_s"]) == 1


def test_steps_that_came_again_replace_those_of_the_attempt_before(tracking, folder: Path) -> None:
    """A run that was killed at step 4 goes on from its checkpoint at 2: MLflow can't take steps 3 and 4 back."""
    attempt(folder, 1, 4)
    first = tracking.export(folder)
    attempt(folder, 3, 6, "finished", clock_s=1.25)
    second = tracking.export(folder)
    assert second != first
    runs = {run["info"]["run_id"]: run for run in tracking.read(folder.name)}
    assert runs[first]["info"]["lifecycle_stage"] == "deleted"
    run = runs.pop(second)
    assert (run["info"]["lifecycle_stage"], run["info"]["status"]) == ("active", "FINISHED")
    assert points(run, "train/loss") == [(1, 500), (2, 1000), (3, 1750), (4, 2250), (5, 2750), (6, 3250)]
    assert len(runs) == 1


def test_a_new_folder_on_another_node_is_the_same_run_of_a_job(tracking, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NCDEMO_JOB", folder.name)
    attempt(folder, 1, 4)
    first = tracking.export(folder)
    other = tmp_path / "another node" / folder.name
    begun(other)
    (other / "steps.jsonl").write_text((folder / "steps.jsonl").read_text())
    attempt(other, 5, 5, "finished", clock_s=2.0)
    assert tracking.export(other) == first
    (run,) = tracking.read(folder.name)
    assert points(run, "train/loss") == [(step, 500 * step) for step in range(1, 6)]

    monkeypatch.setenv("NCDEMO_RESULTS_URI", "az://elsewhere")
    third = tmp_path / "another stack" / folder.name
    attempt(third, 1, 1, "finished")
    assert tracking.export(third) != first
    assert [run["info"]["lifecycle_stage"] for run in tracking.read(folder.name)] == ["active"] * 2


def test_begin_keeps_what_names_the_run(folder: Path) -> None:
    attempt(folder, 1, 1)
    key = (folder / "run.key").read_text()
    begun(folder)
    Run(folder, SPEC)
    assert (folder / "run.key").read_text() == key


def test_folders_of_one_name_on_two_machines_are_two_runs(tracking, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / folder.name
    attempt(folder, 1, 1)
    attempt(other, 1, 1)
    assert tracking.export(folder) != tracking.export(other)
    assert len(tracking.read(folder.name)) == 2


def test_a_folder_from_before_the_key_goes_by_its_start(tracking, folder: Path) -> None:
    attempt(folder, 1, 2, "finished")
    (folder / "run.key").unlink()
    first = tracking.export(folder)
    assert tracking.export(folder) == first
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    (folder / "result.json").write_text(record.model_copy(update={"started_at": "2026-11-24T01:00:00.000+00:00"}).model_dump_json())
    assert tracking.export(folder) != first


def test_a_finished_run_is_never_taken_away(tracking, folder: Path, monkeypatch) -> None:
    """A job of the same name whose results were removed: it runs again, and is another run."""
    monkeypatch.setenv("NCDEMO_JOB", folder.name)
    attempt(folder, 1, 3, "finished")
    first = tracking.export(folder)
    time.sleep(0.01)
    attempt(folder, 1, 3, "finished", clock_s=0.1)
    assert tracking.export(folder) != first
    assert [run["info"]["lifecycle_stage"] for run in tracking.read(folder.name)] == ["active"] * 2


def test_weights_for_a_server_that_never_answers_are_bounded_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    attempt(folder, 1, 1, "finished")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "a.bin").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert log_model(folder, uri, "id", "adapter", timeout_s=1.5) is False
    (line,) = caplog.messages
    assert line == (f"MLflow at {uri}: of {folder} not all weights were logged: it took longer than 1.5 s; "
                    f"check that address, then: ncdemo metrics export {folder} --mlflow {uri}")  # fmt: skip


def test_a_signal_ends_the_wait_for_a_slow_server(folder: Path) -> None:
    """The weights of a finished run are on their way, and the node is to go: it waits for no server."""
    attempt(folder, 1, 1, "finished")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "a.bin").write_bytes(b"x")
    code = """
import sys, logging
from pathlib import Path
from workloads.metrics.mlflow_log import log_model
from workloads.stop import StopRequest
logging.basicConfig()
StopRequest().install()
log_model(Path(sys.argv[1]), sys.argv[2], "id", "adapter")
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        command = [sys.executable, "-c", code, str(folder), f"http://127.0.0.1:{silent.getsockname()[1]}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process, silent.accept()[0]:  # it asks
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=20)[1]
    assert time.monotonic() - began_s < 3
    assert "not all weights were logged: it was stopped; check that address, then: ncdemo metrics export" in said


def test_a_run_can_be_logged_later_by_command(tracking, folder: Path) -> None:
    """Where its spec says: the server was down when it ended."""
    attempt(folder, 1, 1, "finished")
    (folder / "spec.yaml").write_text(dump_spec(TrainSpec.model_validate({"telemetry": {"mlflow_uri": tracking.uri}})))
    (folder / "adapter").mkdir()
    (folder / "adapter" / "a.bin").write_bytes(b"weights")
    command = [sys.executable, "-m", "ncdemo", "metrics", "export", str(folder), "--mlflow"]
    done = subprocess.run(command, capture_output=True, text=True)
    (run,) = tracking.read(folder.name)
    assert (done.returncode, done.stdout) == (0, f"{run['info']['run_id']}\n"), done.stderr
    assert run["artifacts"]["model/adapter/a.bin"] == "weights"
    done = subprocess.run([*command, "http://127.0.0.1:9"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"then: ncdemo metrics export {folder} --mlflow http://127.0.0.1:9" in done.stderr
    done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--mlflow goes alone" in done.stderr


def test_the_clusters_server_tells_its_makers_nothing(servers) -> None:
    """Asked of the MLflow that is installed, without what pytest and CI set, which would switch it off too."""
    code = "from mlflow.telemetry.utils import is_telemetry_disabled as off; print(off())"
    plain = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    said = [subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=env).stdout
            for env in (plain, plain | {"MLFLOW_DISABLE_TELEMETRY": servers.rendered()[1]["MLFLOW_DISABLE_TELEMETRY"]})]  # fmt: skip
    assert said == ["False\n", "True\n"]
