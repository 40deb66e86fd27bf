"""Azure takes the machine back: a job that reads its notice ends in good order, and the signal that follows is no second request."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ncdemo.spec.follow import RunState
from workloads.metrics.exporters.page import groups

PREEMPT = {"EventId": "1", "EventType": "Preempt", "ResourceType": "VirtualMachine", "EventStatus": "Scheduled"}
WAITS = """
import pathlib, signal, sys, time
from ncdemo.spec import BenchSpec, load_spec
from workloads.run import main_guard, open_run
folder = pathlib.Path(sys.argv[1])
def main():
    with open_run(folder, load_spec(folder / "spec.yaml", BenchSpec)):
        print("under way", flush=True)
        time.sleep(300)
main_guard(main)
"""
# Takes a moment to end, as a workload does that writes a checkpoint.
SLOW = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(2)
    (pathlib.Path(sys.argv[1]) / "checkpoint").write_text("whole")
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
print("under way", flush=True)
time.sleep(300)
"""


class Machine(ThreadingHTTPServer):
    """The endpoint of a machine named node-1; `events` is what it tells, `broken` answers that fail first."""

    events: list[dict]
    broken = 0
    asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/metadata/scheduledevents?api-version=2020-07-01"


class Answers(BaseHTTPRequestHandler):
    server: Machine

    def do_GET(self) -> None:
        if self.headers["Metadata"] != "true":
            self.send_error(400)
        elif self.path.startswith("/metadata/instance"):
            self._say(b"node-1")
        else:
            self.server.asked += 1
            self._say(b"not json" if self.server.asked <= self.server.broken else json.dumps({"Events": self.server.events}).encode())

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(("127.0.0.1", 0), Answers) as server:
        server.events = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def under_way(process) -> None:
    assert any(line == "under way\n" for line in process.stderr)


def test_a_preempt_ends_the_job_to_be_started_again(jobs, machine: Machine) -> None:
    machine.broken = 2
    process = jobs.start(code=WAITS, NCDEMO_SCHEDULED_EVENTS_URL=machine.url)
    under_way(process)
    machine.events = [{**PREEMPT, "Resources": ["node-2"]}, {"EventType": "Reboot", "Resources": ["node-1"]}]
    seen = machine.asked
    while machine.asked < seen + 3:
        time.sleep(0.05)
    assert process.poll() is None, "neither another machine's eviction nor another event is ours"
    machine.events = [{**PREEMPT, "Resources": ["node-1"]}]
    start = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - start < 25) == (75, True), said
    assert "Preempt: the workload is asked to end" in said
    assert said.count("can't be asked for an eviction") <= 1
    assert jobs.result()["status"] == "interrupted"
    state = RunState(jobs.folder)
    state.update()
    assert "ncdemo_run_evictions_total 1.0" in groups(state, "node-1")[0].text()
    process = jobs.start(code=WAITS, NCDEMO_SCHEDULED_EVENTS_URL=machine.url)
    process.communicate(timeout=30)
    assert "ncdemo_run_evictions_total 2.0" in groups(state, "node-1")[0].text(), "it is evicted again"
    jobs.start(code="pass").communicate(timeout=30)
    assert "ncdemo_run_evictions_total 2.0" in groups(state, "node-1")[0].text(), "the next attempt is on a machine that is its own"


def test_the_signal_after_a_preempt_waits_for_the_workload_too(jobs, machine: Machine) -> None:
    machine.events = []
    process = jobs.start(code=SLOW, NCDEMO_SCHEDULED_EVENTS_URL=machine.url)
    under_way(process)
    machine.events = [{**PREEMPT, "Resources": ["node-1"]}]
    for line in process.stderr:
        if "is asked to end" in line:
            break
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert (jobs.folder / "checkpoint").read_text() == "whole"


def test_an_endpoint_that_is_no_url_is_one_clear_line(jobs) -> None:
    code, said = jobs.run(NCDEMO_SCHEDULED_EVENTS_URL="169.254.169.254")
    assert code == 2
    assert "Error: NCDEMO_SCHEDULED_EVENTS_URL = '169.254.169.254': must be an http URL; unset it" in said


def test_an_endpoint_that_is_not_there_harms_nothing(jobs) -> None:
    done = WAITS.replace("time.sleep(300)", "time.sleep(1)")
    code, said = jobs.run(code=done, NCDEMO_SCHEDULED_EVENTS_URL="http://127.0.0.1:9/none")
    assert code == 0, said
    assert said.count("can't be asked for an eviction") == 1
