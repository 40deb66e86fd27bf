"""Several processes as one load: nothing lost in the merge, also when one dies; TLS and keys; plans that are refused."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from ncdemo.spec.base import SpecError
from tests.inference.load.plans import PARAMS, plan
from workloads.inference.frameworks.base import Prompt
from workloads.inference.load import failures
from workloads.inference.load.plan import Plan, Target, body, request
from workloads.inference.load.run import run, shares
from workloads.inference.load.schedule import closed, constant, poisson


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_one_answer_for_each_request(canned: Callable[..., str], sends: Callable[[int], list[dict]], processes: int) -> None:
    result = run(plan(canned(), 101, closed(7), processes=processes))
    assert [a.index for a in result.answers] == list(range(101))
    assert sorted(int(log["request_id"]) for log in sends(101)) == list(range(101))
    assert result.report.processes == processes
    assert result.report.events == 101 * (8 + 4)  # role, finish, usage, [DONE]
    assert result.report.connections_opened == 7


def test_processes_start_together_and_keep_one_schedule(canned: Callable[..., str]) -> None:
    schedule = poisson(200, 100, seed=1)
    answers = run(plan(canned(), 100, schedule, processes=2)).answers
    start_ns = answers[0].scheduled_ns
    assert [(a.scheduled_ns - start_ns) / 1e9 for a in answers] == pytest.approx(list(schedule.offsets_s), abs=1e-8)
    assert all(a.sent_ns >= a.scheduled_ns for a in answers)


def test_a_short_load_is_not_charged_with_what_came_before_its_start(canned: Callable[..., str]) -> None:
    """A process has one thread: of its window it can't have more CPU time than that took."""
    plans = [plan(canned(), 8, closed(8)) for _ in range(3)]
    assert min(run(one).report.busiest_cpu_share for one in plans) <= 1.05


def test_a_closed_loop_never_has_more_in_flight(canned: Callable[..., str]) -> None:
    answers = run(plan(canned("--ttft-ms", "5", "--itl-ms", "1"), 60, closed(6), processes=2)).answers
    moves = sorted([(a.sent_ns, 1) for a in answers] + [(a.chunk_ns[-1], -1) for a in answers])
    flight = most = 0
    for _, move in moves:
        flight += move
        most = max(most, flight)
    assert 3 < most <= 6, "two processes, three each; they may not overlap fully on a busy machine"


def test_shares_are_even() -> None:
    dealt = shares(plan("http://127.0.0.1:1", 100, closed(10), processes=4))
    assert [s.concurrency for s in dealt] == [3, 3, 2, 2]
    assert [len(s.requests) for s in dealt] == [30, 30, 20, 20]
    assert len(shares(plan("http://127.0.0.1:1", 100, closed(2), processes=4))) == 2


def test_progress_counts_up(canned: Callable[..., str]) -> None:
    seen: list[int] = []
    run(plan(canned("--ttft-ms", "300"), 20, closed(4)), seen.append)
    assert seen == sorted(seen)
    assert 0 < seen[0] < 20 == seen[-1]


def test_a_process_that_dies_is_told(canned: Callable[..., str]) -> None:
    def kill(_: int) -> None:
        for child in psutil.Process().children() if not killed else ():
            with suppress(psutil.Error):  # one that ended meanwhile
                if not killed and "workloads.inference.load.process" in child.cmdline():
                    child.kill()
                    killed.append(child.pid)

    killed: list[int] = []
    result = run(plan(canned("--ttft-ms", "300"), 40, closed(4), processes=2), kill)
    assert [a.index for a in result.answers] == list(range(40))
    assert [sum(a.failure == f for a in result.answers) for f in (failures.CLIENT_DIED, None)] == [20, 20]
    assert result.report.died == 1


@contextmanager
def tls_before(url: str, folder: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the URL of a TLS end before a plain server, and the first bytes of each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder))
    heads: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bool) -> None:
        while data := await reader.read(65536):
            if keep:
                heads.append(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        await asyncio.gather(pump(reader, inner[1], True), pump(inner[0], writer, False), return_exceptions=True)

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()

    port: list[int] = []
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    ready.wait(10)
    yield f"https://localhost:{port[0]}", heads
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.run_until_complete(asyncio.sleep(0.2))
    loop.close()


def _certificate(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "localhost.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_tls_and_a_bearer_key(canned: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANNED_KEY", "sk-secret")
    with tls_before(canned(), tmp_path) as (url, heads):
        target = Target(f"{url}/v1", "m", "chat", api_key_env="CANNED_KEY", timeout_s=10)
        requests = tuple(request(target, i, body(target, PARAMS, prompt="a")) for i in range(20))
        refused = run(Plan(target, requests[:2], closed(1))).answers
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
        result = run(Plan(target, requests, closed(3)))
    assert {a.failure for a in refused} == {failures.CONNECT_FAILED}
    assert "certificate" in str(refused[0].error).lower()
    assert [a.failure for a in result.answers] == [None] * 20
    assert result.report.connections_opened == 3
    assert b"POST /v1/chat/completions HTTP/1.1\r\n" in heads[0]
    assert all(b"Authorization: Bearer sk-secret\r\n" in head for head in heads)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Target("ftp://x", "m"), "give http://HOST:PORT"),
        (lambda: Target("http://x", "m", api_key_env="NO_SUCH_KEY"), "NO_SUCH_KEY.*is empty"),
        (lambda: plan("http://x", 0, closed(1)), "no request to send"),
        (lambda: plan("http://x", 1, closed(1), processes=0), "processes = 0"),
        (lambda: plan("http://x", 3, constant(1, 2)), "3 requests, but 2 times"),
        (lambda: body(Target("http://x", "m", "chat"), PARAMS, prompt=Prompt(0, (1,))), "not token ids"),
        (lambda: body(Target("http://x", "m"), PARAMS, messages=[{"role": "user", "content": "a"}]), "not messages"),
    ],
)
def test_plans_that_are_refused(make: Callable[[], object], says: str) -> None:
    os.environ.pop("NO_SUCH_KEY", None)
    with pytest.raises(SpecError, match=says):
        make()


def test_by_hand(canned: Callable[..., str], tmp_path: Path) -> None:
    """The command prints what it saw, and saves every answer; a failure is counted under its name."""
    url = canned("--fault", "http_429=0.5", "--seed", "1")
    command = [sys.executable, "-m", "workloads.inference.load", "--url", url, "--model", "m", "--requests", "40", "--tokens", "5"]
    ran = subprocess.run([*command, "--rate", "400", "--save", str(tmp_path / "a")], capture_output=True, text=True, timeout=60)
    said = json.loads(ran.stdout)
    saved = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert said["finished"] + said["failed"]["http_429"] == said["requests"] == len(saved) == 40
    assert said["chunks"] == 5 * said["finished"] == sum(len(answer["chunk_ns"]) for answer in saved)
    assert said["ttft_s"]["p50"] > 0
    refused = subprocess.run([*command[:4], "ftp://x", *command[5:]], capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stderr) == (1, "error: url = 'ftp://x': give http://HOST:PORT or https://HOST\n")
