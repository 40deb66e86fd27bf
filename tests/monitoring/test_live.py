"""A run that lives: scraped at its port, pushed while it runs and at its end, and never harmed by either."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from ncdemo.spec import TrainSpec, dump_spec
from ncdemo.spec.follow import last_sample
from ncdemo.spec.result import StepRecord
from ncdemo.spec.run_folder import node_folder
from workloads.metrics.exporters.export import retire_run
from workloads.metrics.exporters.gateway import Gateway
from workloads.metrics.exporters.live import _push_for_ever, live
from workloads.metrics.exporters.spool import Spool
from workloads.metrics.sampler import Sampler
from workloads.run import open_run
from workloads.stop import StopRequest

STEP = {"step_time_s": 0.5, "learning_rate": 1e-3, "grad_norm": 1, "tokens": 9, "target_tokens": 6, "examples": 1, "tokens_per_s": 18}


@contextlib.contextmanager
def running(folder, **telemetry):
    """Open a real run with one step done."""
    spec = TrainSpec.model_validate({"telemetry": {"mlflow_uri": None, "sample_hz": 20, **telemetry}})
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(dump_spec(spec))
    with open_run(folder, spec, stop=StopRequest()) as run:
        run.append("steps.jsonl", StepRecord(step=1, end_s=run.now(), loss=2.5, **STEP))
        yield run


def until(happened, within_s=10):
    end = time.monotonic() + within_s
    while not (found := happened()):
        assert time.monotonic() < end, f"didn't happen within {within_s} s"
        time.sleep(0.05)
    return found


def values(series, name, **labels):
    return [value for (found, have), value in series.items() if found == name and labels.items() <= dict(have).items()]


def quiet(scrape, url):
    """Scrape; nothing while nobody listens, or where who answers is killed in the midst of it."""
    try:
        return scrape(url)
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return {}


def test_a_port_shows_the_run_as_it_grows_and_closes_with_it(tmp_path, servers, scrape):
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    with running(tmp_path / "runs" / "r", metrics_port=port) as run:
        until(lambda: values(quiet(scrape, url), "ncdemo_train_loss", run="r", strategy="accelerate") == [2.5])
        seen = scrape(url)
        assert values(seen, "ncdemo_run_status", status="running") == [1]
        until(lambda: values(scrape(url), "ncdemo_host_memory_used_bytes"))
        run.append("steps.jsonl", StepRecord(step=2, end_s=run.now(), loss=2.0, **STEP))
        seen = scrape(url)
        assert values(seen, "ncdemo_train_steps_total") == [2]
        assert values(seen, "ncdemo_train_tokens_total") == [18]
        assert time.time() - values(seen, "ncdemo_run_last_progress_timestamp_seconds")[0] < 5
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/other", timeout=5)
    assert quiet(scrape, url) == {}


def test_a_run_is_pushed_while_it_lives_and_at_its_end(tmp_path, gateway, scrape):
    with running(tmp_path / "runs" / "r", pushgateway=gateway, push_every_s=1):
        until(lambda: values(scrape(gateway), "ncdemo_run_status", status="running") == [1])
        assert values(scrape(gateway), "ncdemo_train_loss", run="r") == [2.5]
    assert values(scrape(gateway), "ncdemo_run_status", status="finished") == [1]
    assert values(scrape(gateway), "ncdemo_run_duration_seconds")[0] > 0


def test_a_gateway_that_is_down_costs_a_run_seconds_and_nothing_else(tmp_path, servers, scrape, caplog):
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    with running(tmp_path / "runs" / "r", pushgateway=url, push_every_s=1):
        left_s = time.monotonic()
    assert time.monotonic() - left_s < 4
    assert "does not answer: the run's metrics wait in" in caplog.text
    with servers.pushgateway(tmp_path, port):
        assert Spool(tmp_path / "runs" / ".pushgateway", Gateway(url)).send() == (1, 0)
        assert values(scrape(url), "ncdemo_run_status", status="finished") == [1]


def test_a_live_push_takes_along_what_waits_of_other_runs(tmp_path, servers, scrape):
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    spool = Spool(tmp_path / "runs" / ".pushgateway", Gateway(url))
    assert not spool.deliver(
        "PUT", {"job": "ncdemo", "run": "earlier"}, "# TYPE ncdemo_train_loss gauge\nncdemo_train_loss 3\n", within_s=0
    )
    with servers.pushgateway(tmp_path, port), running(tmp_path / "runs" / "r", pushgateway=url, push_every_s=1):
        until(lambda: values(scrape(url), "ncdemo_train_loss", run="earlier") == [3])
        assert values(scrape(url), "ncdemo_run_status", run="r", status="running") == [1], "it still runs"


def test_whatever_a_push_raises_the_next_one_goes_and_it_is_said_once(caplog):
    failures, went = [ValueError("odd record"), ValueError("odd record"), OSError("disk full")], threading.Event()

    def target(_within_s):
        if failures:
            raise failures.pop(0)
        went.set()

    threading.Thread(target=_push_for_ever, args=(target, 0.01), daemon=True).start()
    assert went.wait(5)
    assert [record.getMessage().partition("(")[2] for record in caplog.records] == [
        "ValueError: odd record); trying again every 0.01 s",
        "OSError: disk full); trying again every 0.01 s",
    ]


def test_a_port_that_is_taken_is_said_and_the_run_goes_on(tmp_path, servers, caplog, capfd):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running(tmp_path / "runs" / "r", metrics_port=port):
            until(lambda: "Address already in use" in capfd.readouterr().err)
            time.sleep(0.2)
    assert "the metrics exporter ended early (exit code 1); there were no live metrics after that" in caplog.text
    assert '"finished"' in (tmp_path / "runs" / "r" / "result.json").read_text()


def test_an_address_that_is_none_is_said_once_and_the_run_goes_on(tmp_path, caplog, capfd):
    with running(tmp_path / "runs" / "r", pushgateway="gateway:9091"):
        until(lambda: "must be an address such as" in capfd.readouterr().err)
    assert "metrics were not pushed (pushgateway = 'gateway:9091': must be an address" in caplog.text


KILLED = """
import os, sys, time
from pathlib import Path
from ncdemo.spec import TrainSpec, dump_spec
from workloads.run import open_run
spec = TrainSpec.model_validate({"telemetry": {"mlflow_uri": None, "sample_hz": 0, "metrics_port": int(sys.argv[2])}})
with open_run(Path(sys.argv[1]), spec):
    time.sleep(60)
"""


def test_the_exporter_ends_with_a_killed_run(tmp_path, servers, scrape):
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "runs" / "r", str(port)], env=os.environ) as run:
        until(lambda: quiet(scrape, url), 20)
        run.send_signal(signal.SIGKILL)
    until(lambda: quiet(scrape, url) == {}, 5)


@contextlib.contextmanager
def other_node(folder, **telemetry):
    """Sample and export this machine as the second node of the run in `folder`."""
    spec = TrainSpec.model_validate({"telemetry": {"mlflow_uri": None, "sample_hz": 20, **telemetry}})
    mine = node_folder(folder, 1)
    mine.mkdir(parents=True, exist_ok=True)
    (mine / "spec.yaml").write_text(dump_spec(spec))
    with live(mine, spec.telemetry, node=1), Sampler(mine / "samples.jsonl", 20, time.perf_counter_ns()):
        yield mine


def test_two_nodes_on_one_machine_are_pushed_as_two_to_their_ends_and_retired_as_one(tmp_path, gateway, scrape):
    folder, told = tmp_path / "runs" / "r", {"pushgateway": gateway, "push_every_s": 1}
    with running(folder, **told), other_node(folder, **told) as second:
        for node in "01":
            until(lambda node=node: values(scrape(gateway), "ncdemo_host_memory_used_bytes", run="r", strategy="accelerate", node=node))
        assert values(scrape(gateway), "ncdemo_run_status", status="running") == [1], "one run"
        newest = last_sample(second / "samples.jsonl")
        until(lambda: values(scrape(gateway), "ncdemo_run_last_sample_timestamp_seconds", node="1")[0] > newest["unix_s"])
        xid = newest | {"tick": 10**6, "gpus": [{"index": 1, "xids": [79]}]}
        with (second / "samples.jsonl").open("a") as lines:
            lines.write(json.dumps(xid) + "\n")
    assert values(scrape(gateway), "ncdemo_gpu_xid_errors_total", node="1", gpu="1", xid="79") == [1], "what came last before its end"
    assert retire_run("r", gateway) == (2, True)
    until(lambda: scrape(gateway) == {})  # it carries a deletion out behind its answer


def test_another_node_serves_its_machine_alone_and_says_which_it_is(tmp_path, servers, scrape):
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    with other_node(tmp_path / "runs" / "r", metrics_port=port):
        until(lambda: values(quiet(scrape, url), "ncdemo_host_cpu_busy_ratio", run="r", strategy="accelerate", node="1"))
        names = {name for name, _ in scrape(url)}
    stamps = {"ncdemo_run_last_sample_timestamp_seconds", "ncdemo_run_seen_timestamp_seconds"}
    assert {name for name in names if name.startswith(("ncdemo_run", "ncdemo_train"))} == stamps
    assert quiet(scrape, url) == {}


def test_the_exporter_beside_another_node_serves_that_one(tmp_path, servers, scrape):
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    with other_node(tmp_path / "runs" / "r") as second:
        env = {**os.environ, "NCDEMO_JOB": "r", "NCDEMO_NODES": "2", "NCDEMO_NODE_RANK": "1"}
        words = ["exporter", "--spec", second / "spec.yaml", "--host", "127.0.0.1", "--port", str(port)]
        with subprocess.Popen([sys.executable, "-m", "workloads.entrypoint", *words], env=env) as exporter:
            until(lambda: values(quiet(scrape, url), "ncdemo_host_memory_used_bytes", run="r", node="1"), 20)
            exporter.send_signal(signal.SIGTERM)
            assert exporter.wait(10) == 0
