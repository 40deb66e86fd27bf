"""Runs in Azure Monitor: Microsoft's own exporter posts to an endpoint of ours; what arrives, what waits, and what is never said."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ncdemo.spec import SpecError, TrainSpec, dump_spec
from ncdemo.spec.follow import RunState
from ncdemo.spec.result import StepRecord
from workloads.metrics.exporters.azure_monitor import OFF, AzureMonitor, connection_string
from workloads.metrics.exporters.azure_spool import Batches, _moment
from workloads.metrics.exporters.gateway import Refused
from workloads.metrics.exporters.page import groups
from workloads.run import open_run
from workloads.stop import Interrupted, StopRequest

pytest.importorskip("azure.monitor.opentelemetry.exporter", reason="scripts/setup_env.sh --extra azure-monitor")
VARIABLE = "APPLICATIONINSIGHTS_CONNECTION_STRING"
STEP = {"step_time_s": 0.5, "learning_rate": 1e-3, "grad_norm": 1, "tokens": 9, "target_tokens": 6, "examples": 1, "tokens_per_s": 18}


@pytest.fixture(autouse=True)
def _left_as_it_was(monkeypatch):
    """In its own process the exporter changes these for good."""
    for name in OFF:
        monkeypatch.setenv(name, "true")
    monkeypatch.delenv(VARIABLE, raising=False)
    level = logging.getLogger("azure").level
    yield
    logging.getLogger("azure").setLevel(level)


def expected(folder):
    """Return the points that the same run has on its page for Prometheus."""
    state = RunState(folder)
    state.update()
    found = set()
    for group in groups(state, "node-1"):
        for family in text_string_to_metric_families(group.text()):
            found |= {(one.name, frozenset({**group.key, **one.labels}.items()), one.value) for one in family.samples}
    return found


def kept(folder, batches):
    state = RunState(folder)
    state.update()
    assert batches.keep(state)


def test_the_points_are_those_of_the_page_with_its_names_labels_and_values(train_run, bench_run, breeze, tmp_path):
    runs = [train_run("tune", gpus=2, lost=1), bench_run(flaw=True)]
    with breeze.Breeze() as azure:
        batches = Batches(tmp_path, azure.connection)
        for folder in runs:
            kept(folder, batches)
        assert batches.send(AzureMonitor(azure.connection, "key"), within_s=10) == (4, 0)
    assert len(azure.points) == len(set(azure.points)) > 100
    assert set(azure.points) == expected(runs[0]) | expected(runs[1])
    assert set(azure.paths) == {"/v2.1/track"}
    assert set(azure.authorizations) == {None}
    record = json.loads((runs[0] / "result.json").read_text())
    first = azure.items[0]
    assert first["time"][:19] > record["started_at"][:19], "the moment of the figures, not of the export"
    assert first["tags"]["ai.cloud.role"] == "ncdemo"
    assert first["tags"]["ai.cloud.roleInstance"] == "node-1"


@pytest.mark.parametrize(
    ("set_by_s", "moved_s"), [(3600.0, 3600.0), (-7200.0, 0.0), (None, 0.0)], ids=["set", "attempt before", "older version"]
)
def test_the_moment_is_by_the_clock_that_the_newest_sample_was_stamped_by(set_by_s, moved_s, train_run):
    """A sample of an attempt before was two hours ago: its run's clock began when the newest attempt says it did."""
    folder = train_run("stamped")
    state = RunState(folder)
    state.update()
    before = _moment(state)
    last = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    last["unix_s"] = None if set_by_s is None else state.started + last["time_s"] + set_by_s
    with (folder / "samples.jsonl").open("a") as lines:
        lines.write(json.dumps(last) + "\n")
    state.update()
    assert _moment(state) == pytest.approx(before + moved_s)
    points = {sample.name: sample.value for family in groups(state, "n")[0].collect() for sample in family.samples}
    assert points["ncdemo_run_last_sample_timestamp_seconds"] == pytest.approx(state.started + last["time_s"] + (set_by_s or 0))


def test_faults_of_every_kind_lose_nothing_and_repeat_nothing_that_was_taken(train_run, breeze, servers, tmp_path):
    folders, port = [train_run(name, seed=seed) for seed, name in enumerate("abcd")], servers.free_port()
    connection = breeze.connection(f"http://127.0.0.1:{port}")
    batches, sender = Batches(tmp_path, connection), AzureMonitor(connection, "key")
    for folder in folders:
        kept(folder, batches)
        assert batches.send(sender, within_s=0.1)[0] == 0, "nobody listens"
    assert batches.why.endswith("does not answer")
    assert len(batches.waiting()) == 4
    faults = [(500, {}), (206, {}), (429, {"Retry-After": "1"}), (503, {}), (401, {}), (439, {})]
    with breeze.Breeze(fail=faults, port=port) as azure:
        deadline = time.monotonic() + 30
        while batches.waiting():
            batches.send(sender, within_s=5)
            assert time.monotonic() < deadline
    assert azure.failures == []
    assert len(azure.points) == len(set(azure.points))
    assert set(azure.points) == set().union(*map(expected, folders))


def test_a_pause_that_was_asked_for_is_kept(train_run, breeze, tmp_path):
    with breeze.Breeze(fail=[(429, {"Retry-After": "60"})]) as azure:
        batches, sender = Batches(tmp_path, azure.connection), AzureMonitor(azure.connection, "key")
        kept(train_run("a"), batches)
        assert batches.send(sender, within_s=1) == (0, 1)
        assert batches.why.endswith("asked for a pause")
        assert len(azure.paths) == 1


def test_what_is_refused_for_good_is_dropped_and_said_without_the_key(train_run, breeze, tmp_path):
    with breeze.Breeze(fail=[(400, {})]) as azure:
        batches, sender = Batches(tmp_path, azure.connection), AzureMonitor(azure.connection, "key")
        kept(train_run("a"), batches)
        with pytest.raises(
            Refused,
            match=rf"^Azure Monitor \(http://127\.0\.0\.1:\d+\) refuses the points: 400; check that the resource of {VARIABLE} is still there$",
        ):
            batches.send(sender, within_s=5)
        assert batches.waiting() == []
        kept(train_run("b"), batches)
        assert batches.send(sender, within_s=5) == (1, 0)


def test_a_loss_that_is_no_number_is_left_out_and_the_rest_arrives(train_run, breeze, tmp_path):
    folder = train_run("nan")
    step = json.loads((folder / "steps.jsonl").read_text().splitlines()[-1]) | {"loss": float("nan"), "step": 61}
    with (folder / "steps.jsonl").open("a") as lines:
        lines.write(json.dumps(step) + "\n")
    with breeze.Breeze() as azure:
        batches = Batches(tmp_path, azure.connection)
        kept(folder, batches)
        assert batches.send(AzureMonitor(azure.connection, "key"), within_s=5) == (1, 0)
    names = {name for name, _, _ in azure.points}
    assert "ncdemo_train_loss" not in names
    assert "ncdemo_train_steps_total" in names


def test_an_identity_signs_and_without_one_the_figures_wait(train_run, breeze, ncdemo, tmp_path):
    folder, pem = train_run("mine"), breeze.certificate(tmp_path)
    with breeze.Breeze(certificate=pem) as azure, breeze.Breeze() as machine:
        env = {VARIABLE: azure.connection, "REQUESTS_CA_BUNDLE": str(pem), "AZURE_TOKEN_CREDENTIALS": "prod"}
        # Nobody is there to ask for a token.
        nobody = {**env, "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"}
        command = [
            sys.executable,
            "-m",
            "workloads.metrics.exporters",
            "export",
            folder,
            "--azure-monitor",
            "identity",
            "--within-s",
            "0.1",
        ]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **nobody}, timeout=60)
        assert done.returncode == 75, done.stderr
        assert "no token of an Azure identity (" in done.stderr
        assert azure.paths == []
        signed = {**env, "IDENTITY_ENDPOINT": f"{machine.url}/token", "IDENTITY_HEADER": "x"}
        done = ncdemo("metrics", "send", "--azure-monitor", "identity", **signed)
    assert (done.returncode, done.stdout) == (0, f"Azure Monitor ({azure.url}): 1 batches sent, 0 still wait\n"), done.stderr
    assert set(azure.authorizations) == {f"Bearer {breeze.TOKEN}"}
    assert set(azure.points) == expected(folder)


def running(folder, **telemetry):
    spec = TrainSpec.model_validate({"telemetry": {"mlflow_uri": None, "sample_hz": 20, "azure_monitor": "key", **telemetry}})
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(dump_spec(spec))
    return open_run(folder, spec, stop=StopRequest())


def test_a_run_sends_while_it_lives_and_at_its_end(breeze, tmp_path, monkeypatch):
    with breeze.Breeze() as azure:
        monkeypatch.setenv(VARIABLE, azure.connection)
        with running(tmp_path / "runs" / "r", push_every_s=1) as run:
            run.append("steps.jsonl", StepRecord(step=1, end_s=run.now(), loss=2.5, **STEP))
            end = time.monotonic() + 20
            while not any(name == "ncdemo_train_loss" and value == 2.5 for name, _, value in azure.points):
                assert time.monotonic() < end, "nothing arrived while it ran"
                time.sleep(0.05)
        status = [value for name, labels, value in azure.points if name == "ncdemo_run_status" and ("status", "finished") in labels]
    assert (status[0], status[-1]) == (0, 1)
    assert not list((tmp_path / "runs" / ".azure-monitor").rglob("*.json"))


def stopped(folder, began_s):
    with running(folder, push_every_s=1):
        began_s.append(time.monotonic())
        raise Interrupted("SIGTERM")


def test_a_run_that_is_stopped_gives_an_endpoint_that_hangs_seconds_and_no_more(breeze, tmp_path, monkeypatch, caplog):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv(VARIABLE, breeze.connection(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        began_s = []
        with pytest.raises(SystemExit, match="130"):
            stopped(tmp_path / "runs" / "r", began_s)
        # Five for Azure Monitor, one each for what runs beside; the rest is for a busy machine.
        assert time.monotonic() - began_s[0] < 5 + 2 + 5
    assert "(it took longer than 5 s); send them later with: ncdemo metrics send --azure-monitor key" in caplog.text
    last = json.loads(max((tmp_path / "runs" / ".azure-monitor").rglob("*.json"), key=lambda path: path.name).read_text())
    assert ["ncdemo_run_status", {"status": "interrupted"}, 1.0] in last["points"]


def test_down_for_the_whole_run_harms_nothing_and_loses_nothing(breeze, servers, ncdemo, tmp_path, monkeypatch, caplog):
    port = servers.free_port()
    monkeypatch.setenv(VARIABLE, breeze.connection(f"http://127.0.0.1:{port}"))
    with running(tmp_path / "runs" / "r", push_every_s=1) as run:
        waits = tmp_path / "runs" / ".azure-monitor"
        run.append("steps.jsonl", StepRecord(step=1, end_s=run.now(), loss=2.5, **STEP))
        end = time.monotonic() + 20
        while len(list(waits.rglob("*.json"))) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert "metrics for Azure Monitor wait in" in caplog.text
    assert "send them later with: ncdemo metrics send --azure-monitor key" in caplog.text
    written = [path.read_text(errors="replace") for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [text for text in [*written, caplog.text] if breeze.KEY in text]
    batches = [json.loads(path.read_text()) for path in sorted(waits.rglob("*.json"))]
    with breeze.Breeze(port=port) as azure:
        done = ncdemo("metrics", "send", "--azure-monitor", "key")
    assert (done.returncode, done.stdout) == (0, f"Azure Monitor ({azure.url}): {len(batches)} batches sent, 0 still wait\n"), done.stderr
    assert [(name, value) for name, _, value in azure.points] == [(name, value) for batch in batches for name, _, value in batch["points"]]
    assert json.loads((tmp_path / "runs" / "r" / "result.json").read_text())["status"] == "finished"


def test_two_processes_send_each_batch_once(train_run, breeze, tmp_path, monkeypatch):
    with breeze.Breeze() as azure:
        monkeypatch.setenv(VARIABLE, azure.connection)
        monkeypatch.setenv("NCDEMO_RUNS", str(tmp_path / "runs"))
        for seed in range(12):
            kept(train_run(f"r{seed}", seed=seed), Batches(tmp_path / "runs", azure.connection))
        command = [sys.executable, "-m", "workloads.metrics.exporters", "send", "--azure-monitor", "key"]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) for _ in range(2)]
        said = [one.communicate(timeout=60)[0] for one in both]
        assert [one.returncode for one in both] == [0, 0], said
    assert len(azure.points) == len(set(azure.points))
    assert len(azure.paths) == 12


def test_it_tells_nobody_else_anything(breeze):
    before = set(threading.enumerate())
    with breeze.Breeze() as azure:
        AzureMonitor(azure.connection, "key")
        new = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in new if "serve_forever" not in name], "no thread that reports on its own"


@pytest.mark.parametrize("text", ["InstrumentationKey=canary-5ecret", "IngestionEndpoint=https://canary-5ecret"])
def test_what_is_no_connection_string_is_said_without_it(text, train_run, ncdemo):
    done = ncdemo("metrics", "export", train_run("x"), "--azure-monitor", "key", **{VARIABLE: text})
    assert done.returncode == 2
    assert (
        done.stderr
        == f"Error: {VARIABLE}: is no connection string; set it to one of the form InstrumentationKey=<uuid>;IngestionEndpoint=https://...\n"
    )


def test_without_a_connection_string_or_the_extra_one_line_says_what_to_do(breeze, monkeypatch, caplog, tmp_path):
    with pytest.raises(SpecError, match=rf"^{VARIABLE} is not set; copy it from the overview of your Application Insights resource$"):
        connection_string()
    monkeypatch.setenv(VARIABLE, breeze.connection("https://a.b"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"exporter isn't installed; run scripts/setup_env\.sh --extra azure-monitor"):
        connection_string()
    monkeypatch.undo()
    with running(tmp_path / "runs" / "r"):
        pass
    assert f"metrics were not pushed ({VARIABLE} is not set" in caplog.text
    assert json.loads((tmp_path / "runs" / "r" / "result.json").read_text())["status"] == "finished"


def test_two_places_at_once_are_refused(train_run, ncdemo):
    done = ncdemo("metrics", "export", train_run("x"), "--azure-monitor", "key", "--gateway", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "--gateway and --azure-monitor are two places; give one of them." in done.stderr
