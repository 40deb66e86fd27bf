"""Servers and engines of our own that die, hang or never start: what came is kept, the failure has its class, and the sweep goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell, RequestRecord
from ncdemo.spec.sweep import cells
from ncdemo.spec.traffic import Load
from workloads.inference import served
from workloads.inference.asked import Asked, params
from workloads.inference.frameworks import echo
from workloads.inference.frameworks.base import Params, Prompt, Serve, Settings
from workloads.inference.load.ceiling import Ceiling
from workloads.inference.served import ClientOptions, Served
from workloads.inference.servers.ports import free_port
from workloads.inference.servers.server import Server
from workloads.inference.servers.watch import EngineLines
from workloads.inference.stage import Stage
from workloads.inference.subject import Failed, Worker
from workloads.records import Records

SPEC = {
    "mode": "server", "engines": ["echo"], "concurrency": [8], "prompts": {"count": 24}, "sampling": {"max_new_tokens": 6},
    "max_model_len": 512, "warmup_requests": 0, "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
}  # fmt: skip
SETTINGS = Settings("fp32", 128, 0.4, 1)
WHAT = Asked([Prompt(i, (1, 2)) for i in range(4)], [None] * 4, [4] * 4)
CLOSED = Load(kind="closed", concurrency=2)
PARAMS = Params(2, 4, True, 0.0, 0)
CLIENT = ClientOptions(Ceiling("here", 1e6, 1e6), 1)
WITH_ARGS = """
import sys
from dataclasses import replace
from workloads.inference import bench
from workloads.inference.frameworks import echo
plain, args = echo.serve, tuple(sys.argv.pop().split())
echo.serve = lambda path, settings, port: plain(path, replace(settings, server_args=args), port)
bench.main()
"""


@pytest.fixture
def sweep(tmp_path: Path, tiny_model: Path) -> Callable[..., tuple[list[Cell], list[RequestRecord]]]:
    """Run a sweep of echo's server with arguments of its own; return its cells and requests."""

    def run(server_args: str, **changes: object) -> tuple[list[Cell], list[RequestRecord]]:
        spec = {**SPEC, "models": [{"name": str(tiny_model), "label": "canned"}], **changes}
        (tmp_path / "spec.yaml").write_text(dump_spec(BenchSpec.model_validate_json(json.dumps(spec))))
        command = [sys.executable, "-c", WITH_ARGS, "--run", str(tmp_path), server_args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        record = RunRecord.model_validate_json((tmp_path / "result.json").read_text())
        assert record.bench, done.stderr
        return record.bench.cells, [
            RequestRecord.model_validate_json(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()
        ]

    return run


def test_a_server_that_dies_in_mid_cell_keeps_its_answers_is_restarted_and_given_up(sweep: Callable) -> None:
    done, requests = sweep("--exit-at 10 --itl-ms 1", repeats=4)
    assert [c.failure for c in done] == ["engine_died"] * 4
    assert "the server ended (exit 9)" in str(done[0].error)
    for cell in done[:2]:
        own = [r for r in requests if r.repeat == cell.repeat]
        assert [r.index for r in own] == list(range(24)), "each request once"
        assert 0 < sum(r.ok for r in own) <= 10
        assert (cell.requests, cell.failed) == (24, sum(not r.ok for r in own)), "sent = finished + failed"
        assert all(r.ok or r.failure in ("closed_early", "truncated", "connect_refused") for r in own)
        assert (cell.output_tokens_per_s, cell.ttft_s, cell.slo_attainment) == (None, None, None), "no figure of half a cell"
    assert {r.repeat for r in requests} == {0, 1}, "after two deaths it is not started again"
    assert [(c.requests, c.failed) for c in done[2:]] == [(24, 24)] * 2


def test_a_server_that_dies_once_serves_the_next_cells(sweep: Callable) -> None:
    """Each start answers 40 requests: one whole cell and most of another."""
    done, requests = sweep("--exit-at 40", repeats=4, client_processes=1)
    assert [c.failure for c in done] == [None, "engine_died"] * 2
    assert [c.failed for c in done[::2]] == [0, 0]
    assert Counter(r.repeat for r in requests) == dict.fromkeys(range(4), 24)
    assert [c.failed for c in done] == [sum(not r.ok for r in requests if r.repeat == n) for n in range(4)]


def test_a_server_that_hangs_ends_its_cell_early(sweep: Callable) -> None:
    start = time.monotonic()
    done, requests = sweep("--fault hang=1", repeats=3, prompts={"count": 200}, request_timeout_s=0.5)
    assert [c.failure for c in done] == ["engine_hung"] * 3
    assert "request after request brought nothing in 0.5 s" in str(done[0].error)
    for repeat in (0, 1):
        counts = Counter(r.failure for r in requests if r.repeat == repeat)
        assert counts["timeout"] == 8
        assert counts["abandoned"] + counts["not_sent"] == 192
    assert {r.repeat for r in requests} == {0, 1}
    assert time.monotonic() - start < 60


def test_a_stopped_server_gives_no_answer_to_its_health_either(tmp_path: Path, tiny_model: Path) -> None:
    with serve(tmp_path, tiny_model, request_timeout_s=0.5) as subject:
        assert subject.failed is None
        os.kill(subject._server._process.pid, signal.SIGSTOP)
        subject._server.check_healthy = lambda: Server.check_healthy(subject._server, 1.0)
        answers = subject.measure(WHAT, CLOSED, PARAMS)
        assert isinstance(answers, Failed)
        assert (answers.kind, len(answers.answers), subject.failed.kind) == ("engine_hung", 4, "engine_hung")
        assert not subject.failed.answers, "they are this cell's alone"
        os.kill(subject._server._process.pid, signal.SIGCONT)


def serve(folder: Path, model: Path, request_timeout_s: float = 20.0) -> Served:
    lines = EngineLines(Records(folder, print).append, 0, engine="echo", model="m", variant=None)
    return Served("echo", str(model), SETTINGS, folder / "server", CLIENT, lines, 0.0, request_timeout_s)


def test_a_port_that_was_taken_meanwhile_is_another_one(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        ports = iter([taken, free_port()])
        monkeypatch.setattr(served, "free_port", lambda: next(ports))
        with serve(tmp_path, tiny_model) as subject:
            assert subject.failed is None
            assert len(subject.measure(WHAT, CLOSED, PARAMS)) == 4
        monkeypatch.setattr(served, "free_port", lambda: taken)
        with serve(tmp_path, tiny_model) as subject:
            assert subject.failed.kind == "load_failed"
            assert f"port {taken}: cannot be used" in subject.failed.reason


def test_a_port_that_is_taken_while_the_server_starts(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself finds it so, and dies of it; here the check before it is passed over."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        ports = iter([holder.getsockname()[1], free_port()])
        monkeypatch.setattr(served, "free_port", lambda: next(ports))
        monkeypatch.setattr("workloads.inference.servers.server.check_port", lambda port: None)
        monkeypatch.setattr(Server, "_ask", _patient(Server._ask))
        with serve(tmp_path, tiny_model) as subject:
            assert subject.failed is None


def _patient(ask: Callable) -> Callable:
    """The holder of the port answers nothing, so don't wait for it for long."""
    return lambda self, method, path, timeout_s: ask(self, method, path, 0.2)


def test_starts_that_fail_have_their_class(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with serve(tmp_path, empty) as subject:
        assert (subject.failed.kind, "no such model folder" in subject.failed.reason) == ("model_missing", True)
    (tmp_path / "server").write_text("a file where the folder should be")
    with serve(tmp_path, tiny_model) as subject:
        assert (subject.failed.kind, "server" in subject.failed.reason) == ("load_failed", True)
    monkeypatch.setattr(echo, "serve", lambda path, settings, port: Serve((str(empty),), f"http://127.0.0.1:{port}", "m"))
    (tmp_path / "server").unlink()
    with serve(tmp_path, tiny_model) as subject:
        assert (subject.failed.kind, "Permission denied" in subject.failed.reason) == ("load_failed", True)


def test_an_offline_engine_that_hangs_is_killed_with_all_it_started(tiny_model: Path) -> None:
    with Worker("echo", str(tiny_model), SETTINGS, request_timeout_s=0.5) as worker:
        assert worker.failed is None
        os.kill(worker._process.pid, signal.SIGSTOP)
        start = time.monotonic()
        failed = worker.measure(WHAT, CLOSED, PARAMS)
        # Four requests, two at once: two waves.
        assert failed == Failed("engine_hung", "the engine gave no answer in 1 s and was killed; its last words are in the log")
        assert 1 <= time.monotonic() - start < 10
        assert worker.failed == failed
        assert not psutil.pid_exists(worker._process.pid)


def test_an_offline_engine_that_never_loads(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a child that holds the pipe open, as engines' own processes do."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 600 &\necho $! > '" + str(tmp_path / "child") + "'\nwait\n")
    python.chmod(0o755)
    monkeypatch.setenv("NCDEMO_SGLANG_PYTHON", str(python))
    with Worker("sglang", str(tiny_model), SETTINGS, 600, start_s=1) as worker:
        assert (worker.failed.kind, "no answer in 1 s" in worker.failed.reason) == ("load_failed", True)
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    python.chmod(0o644)
    with Worker("sglang", str(tiny_model), SETTINGS, 600) as worker:
        assert (worker.failed.kind, "Permission denied" in worker.failed.reason) == ("load_failed", True)


def test_a_folder_that_is_no_model_is_missing_offline_too(tmp_path: Path) -> None:
    with Worker("echo", str(tmp_path), SETTINGS, 600) as worker:
        assert (worker.failed.kind, "config.json is looked for" in worker.failed.reason) == ("model_missing", True)


def test_an_engine_that_failed_is_started_anew(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold what it had begun: vLLM's next call would get the outputs of this one's requests. However often, it isn't given up."""
    spec = BenchSpec.model_validate_json(json.dumps(
        {**SPEC, "mode": "offline", "repeats": 4, "models": [{"name": str(tiny_model), "label": "tiny"}]}
    ))  # fmt: skip
    broken = [True, True, True, False]
    monkeypatch.setattr(
        "workloads.inference.stage.params",
        lambda *asked: replace(params(*asked), max_new_tokens="no number") if broken.pop(0) else params(*asked),
    )
    with Stage(spec, tmp_path, Records(tmp_path, print).append, 0, lambda *_: None, lambda *_: None) as stage:
        found, pids = [], []
        for cell in cells(spec):
            pids.append(stage.get(cell.subject, WHAT)._process.pid)
            found.append(stage.measure(cell, WHAT))
    assert [f.kind if isinstance(f, Failed) else len(f) for f in found] == ["engine_error"] * 3 + [4]
    assert len(set(pids)) == 4


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An endpoint of somebody else's that wants the key sk-right."""
    env = {**os.environ, "CANNED_KEY": "sk-right"}
    command = [sys.executable, "-m", "workloads.inference.load.canned", "--key-env", "CANNED_KEY"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


def outside(url: str, folder: Path) -> Served:
    lines = EngineLines(Records(folder, print).append, 0, engine="openai", model="m", variant=None)
    settings = replace(SETTINGS, endpoint_url=url)
    return Served("openai", "m", settings, folder / "server", CLIENT, lines, 0.0, 20.0)


def test_an_endpoint_that_wants_a_key_gets_it_and_nobody_else_does(locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    start = time.monotonic()
    with outside(locked, tmp_path) as subject:
        assert subject.failed == Failed("load_failed", f"GET {locked}/v1/models: answers 401; it wants a key: export it as OPENAI_API_KEY")
    assert time.monotonic() - start < 8, "it is not asked again and again"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with outside(locked, tmp_path) as subject:
        assert "answers 401 to the key in OPENAI_API_KEY" in subject.failed.reason
        assert "sk-wrong" not in subject.failed.reason
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    with outside(locked, tmp_path) as subject:
        assert [a.failure for a in subject.measure(WHAT, CLOSED, PARAMS)] == [None] * 4
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
        answers = subject.measure(WHAT, CLOSED, PARAMS)
    # This endpoint says which key it refuses, as some do.
    assert {a.error for a in answers} == {'HTTP 401: {"error":{"message":"Incorrect API key provided: Bearer ***"}}'}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-" not in written
