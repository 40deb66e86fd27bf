"""The client against a real server: every fault under its name, none lost, late sends late, connections kept."""

import collections
import dataclasses
import resource
import socket
import statistics
import time
from collections.abc import Callable

import httpx
import pytest

from tests.inference.load.plans import PARAMS, plan
from workloads.inference.load import failures
from workloads.inference.load.canned.faults import FAULTS
from workloads.inference.load.client import Client
from workloads.inference.load.connection import Connection
from workloads.inference.load.parse import answer
from workloads.inference.load.plan import Plan, Target, body, request
from workloads.inference.load.run import run
from workloads.inference.load.schedule import closed, constant


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_every_fault_has_its_name(canned: Callable[..., str], endpoint: str) -> None:
    target = Target(canned(), "m", endpoint, timeout_s=0.5)  # type: ignore[arg-type]
    kinds = [*FAULTS, None]
    fields = [{} if kind is None else {"canned_fault": kind} for kind in kinds]
    targets = [dataclasses.replace(target, fields=f) for f in fields]
    requests = tuple(request(t, i, body(t, PARAMS, prompt="a b c")) for i, t in enumerate(targets))
    answers = dict(zip(kinds, run(Plan(target, requests, closed(4))).answers, strict=True))
    assert {kind: a.failure for kind, a in answers.items()} == {**FAULTS, None: None}
    assert all((a.error is None) == (a.failure is None) for a in answers.values())
    assert answers["http_500"].error == 'HTTP 500: {"error":{"message":"canned 500","code":500}}'
    assert "4 chunks with tokens" in str(answers["truncate"].error)
    assert "canned error" in str(answers["error_event"].error)
    # What is fine all the same says how it was.
    assert (answers[None].chunk_tokens, answers[None].chunk_tokens_from, answers[None].output_tokens) == ([1] * 8, "usage", 8)
    assert (answers["multi_token"].chunk_tokens_from, answers["multi_token"].output_tokens) == ("unknown", 8)
    assert (answers["no_usage"].chunk_tokens_from, answers["no_usage"].output_tokens) == ("one_each", None)
    first = {kind: answers[kind].first_text for kind in (None, "multi_token", "no_usage")}
    assert first == {None: None, "multi_token": " the of one day", "no_usage": " the"}, "kept where its tokens must be counted from it"
    assert answers["empty_first"].text == answers[None].text == answers["multi_token"].text == " the of one day in this old house"
    assert len(answers["empty_first"].chunk_ns) == 8


def test_token_ids_say_how_many_tokens_a_chunk_has(canned: Callable[..., str]) -> None:
    (answer,) = run(plan(canned("--fault", "multi_token=1"), 1, closed(1), tokens=10, return_token_ids=True)).answers
    assert (answer.chunk_tokens, answer.chunk_tokens_from, answer.token_ids) == ([4, 4, 2], "token_ids", list(range(10)))


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    answers = run(plan(url, 20, closed(3))).answers
    assert {a.failure for a in answers} == {failures.CONNECT_REFUSED}
    assert answers[0].error == "Connection refused"
    assert sorted(a.index for a in answers) == list(range(20))


def test_no_such_host() -> None:
    answers = run(plan("http://no-such-host.invalid:1", 2, closed(1))).answers
    assert {a.failure for a in answers} == {failures.CONNECT_FAILED}


def test_a_thousand_faults_and_no_record_lost(canned: Callable[..., str], sends: Callable[[int], list[dict]]) -> None:
    """Sent = finished + failed, each request once, and each failure is the one that was put in."""
    kinds = [kind for kind in FAULTS if not kind.startswith("hang")]
    url = canned(*(f"--fault={kind}={0.8 / len(kinds):.4f}" for kind in kinds), "--fault=hang=0.05", "--seed", "5")
    result = run(plan(url, 1250, closed(48), processes=2, timeout_s=2.0))
    put_in = {int(log["request_id"]): log["fault"] for log in sends(1250)}
    assert [a.index for a in result.answers] == list(range(1250))
    assert sum(kind is not None for kind in put_in.values()) >= 1000
    assert [a.failure for a in result.answers] == [FAULTS[put_in[i]] if put_in[i] else None for i in range(1250)]
    counted = collections.Counter("failed" if a.failure else "finished" for a in result.answers)
    assert counted["failed"] + counted["finished"] == 1250 == len(put_in)


def test_a_server_that_hangs_is_given_up(canned: Callable[..., str]) -> None:
    """Sixteen slots for 10,000 requests: after eight silent ones nobody waits for the rest."""
    for schedule in (closed(16), constant(2000, 10_000)):
        result = run(plan(canned("--fault", "hang=1"), 10_000, schedule, timeout_s=0.4))
        counts = collections.Counter(a.failure for a in result.answers)
        assert result.report.hung == 1
        assert [a.index for a in result.answers] == list(range(10_000))
        assert set(counts) <= {failures.TIMEOUT, failures.ABANDONED, failures.NOT_SENT}
        assert counts[failures.TIMEOUT] < 2000 < counts[failures.NOT_SENT]
        assert "given up: " in str(next(a.error for a in result.answers if a.failure == failures.NOT_SENT))
        assert not any(a.chunk_ns for a in result.answers)


def test_a_slow_server_is_not_given_up(canned: Callable[..., str]) -> None:
    """Nine silent requests are in flight while two answer: those time out, and the rest is sent all the same."""
    target = Target(canned("--itl-ms", "50"), "m", "chat", timeout_s=0.5)
    hangs = [i < 9 for i in range(40)]
    fields = [{"canned_fault": "hang"} if hang else {} for hang in hangs]
    requests = tuple(request(target, i, body(dataclasses.replace(target, fields=f), PARAMS, prompt="a")) for i, f in enumerate(fields))
    result = run(Plan(target, requests, closed(11)))
    assert [a.failure for a in result.answers] == [failures.TIMEOUT if hang else None for hang in hangs]
    assert result.report.hung == 0


def test_a_single_request_that_hangs_is_no_hung_server(canned: Callable[..., str]) -> None:
    target = Target(canned(), "m", "chat", timeout_s=0.3)
    fields = [{"canned_fault": "hang"}, {}, {"canned_fault": "hang"}, {}]
    requests = tuple(request(target, i, body(dataclasses.replace(target, fields=f), PARAMS, prompt="a")) for i, f in enumerate(fields))
    result = run(Plan(target, requests, closed(1)))
    assert [a.failure for a in result.answers] == [failures.TIMEOUT, None] * 2
    assert result.report.hung == 0


def test_a_server_that_dies_in_between(canned: Callable[..., str]) -> None:
    answers = run(plan(canned("--exit-at", "5", "--itl-ms", "1"), 40, closed(4))).answers
    counts = collections.Counter(a.failure for a in answers)
    assert counts[None] <= 5
    assert set(counts) <= {None, failures.CLOSED_EARLY, failures.TRUNCATED, failures.CONNECT_REFUSED}
    assert len(answers) == 40
    assert counts[failures.CONNECT_REFUSED] >= 25


def test_a_server_that_dies_before_it_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has taken the connection, which is reset with the listener: somebody was there, so nothing was refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}", "m", "chat")
    client = Client(target, (request(target, 0, body(target, PARAMS, prompt="a")),), None, 1)
    take = client.pool.take

    def take_and_die() -> Connection:
        connection = take()
        listener.close()
        return connection

    monkeypatch.setattr(client.pool, "take", take_and_die)
    try:
        exchanges = client.run(time.perf_counter_ns())
    finally:
        client.close()
    assert [answer(exchange)[0].failure for exchange in exchanges] == [failures.CLOSED_EARLY]


@pytest.mark.parametrize(("stall_s", "count"), [(1.0, 300), pytest.param(5.0, 1000, marks=pytest.mark.slow)])
def test_coordinated_omission(canned: Callable[..., str], stall_s: float, count: int) -> None:
    """A stall at 0.5 s, 100 requests a second: who was due t into the stall waits stall - t, so the waits are 10 ms apart.

    The 99th percentile of n waits has n / 100 above it, so it is by hand: stall - n / 100 x 10 ms.
    """
    rate = 100
    url = canned("--stall-at-s", "0.5", "--stall-s", str(stall_s))
    result = run(plan(url, count, constant(rate, count), tokens=1, connections=int(stall_s * rate) + 50))
    assert all(a.failure is None for a in result.answers)
    waits = sorted((a.chunk_ns[0] - a.scheduled_ns) / 1e9 for a in result.answers)
    # 300 waits are too few to bound a p99 (662 are needed), but the rank can be looked at all the same.
    assert waits[count * 99 // 100 - 1] == pytest.approx(stall_s - count / 100 / rate, abs=0.2)
    assert waits[-1] == pytest.approx(stall_s, abs=0.2)
    assert sum(wait > 0.2 for wait in waits) == pytest.approx((stall_s - 0.2) * rate, abs=20)
    # The sends themselves went on through the stall.
    assert result.report.max_lateness_s < 0.3


def test_connections_are_opened_ahead_and_kept(canned: Callable[..., str]) -> None:
    url = canned()
    report = run(plan(url, 200, closed(8))).report
    assert (report.connections_opened, report.connections_opened_in_window) == (8, 0)
    assert "canned:connections_total 9\n" in httpx.get(url + "/metrics").text  # 8 and this one


def test_an_open_load_opens_more_when_it_must(canned: Callable[..., str]) -> None:
    """Twenty due at once, two connections: nobody waits for a slot."""
    result = run(plan(canned("--ttft-ms", "400"), 20, constant(1e6, 20), connections=2))
    assert result.report.connections_opened_in_window == 18
    assert all(a.failure is None for a in result.answers)
    assert result.report.max_lateness_s < 0.3
    assert max(a.chunk_ns[0] for a in result.answers) - min(a.sent_ns for a in result.answers) < 0.78e9


def test_a_prompt_larger_than_the_socket_takes(canned: Callable[..., str]) -> None:
    target = Target(canned(), "m")
    requests = tuple(request(target, i, body(target, PARAMS, prompt="word " * 2_000_000)) for i in range(2))
    answers = run(Plan(target, requests, closed(2))).answers
    assert [(a.failure, a.prompt_tokens) for a in answers] == [(None, 2_000_000)] * 2


def test_stamps_are_the_servers_own(canned: Callable[..., str], sends: Callable[[int], list[dict]]) -> None:
    """32 streams on a schedule: an arrival is never before its send, and soon after, unless the machine is busy."""
    answers = run(plan(canned("--ttft-ms", "20", "--itl-ms", "20"), 64, closed(32), tokens=16)).answers
    sent = {int(log["request_id"]): log["send_ns"] for log in sends(64)}
    late_ms = [(a - s) / 1e6 for answer in answers for a, s in zip(answer.chunk_ns, sent[answer.index], strict=True)]
    assert min(late_ms) > 0
    assert statistics.quantiles(late_ms, n=10)[0] < 2
    assert statistics.median(late_ms) < 10


def test_more_connections_than_a_shell_allows(canned: Callable[..., str]) -> None:
    """1,500 open at once: the usual limit of 1,024 files is raised."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 4096:
        pytest.skip(f"this system allows {most} open files, whatever a process asks for")
    result = run(plan(canned("--ttft-ms", "1500"), 1500, closed(1500), tokens=1))
    assert {a.failure for a in result.answers} == {None}
    assert result.report.connections_opened == 1500
