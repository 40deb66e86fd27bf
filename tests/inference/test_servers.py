"""The server's life, with real processes: healthy, dead, hung, stubborn, orphaned."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ncdemo.spec import SpecError
from workloads.inference import frameworks
from workloads.inference.frameworks.base import Serve, Settings
from workloads.inference.servers import orphans
from workloads.inference.servers.ports import free_port
from workloads.inference.servers.prometheus import parse
from workloads.inference.servers.server import Server, ServerError

FAKE = Path(__file__).parent / "fake_server.py"


@pytest.fixture(autouse=True)
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCDEMO_CACHE", str(tmp_path / "cache"))


def fake(mode: str, port: int | None = None) -> Serve:
    port = port or free_port()
    return Serve(
        (sys.executable, str(FAKE), str(port), mode), f"http://127.0.0.1:{port}", "model", env=(("SEEN", "{folder}/x"),),
        files=(("site/a.txt", "text"),), metrics="/metrics", metrics_prefix="fake:", prefix_cache="on", reset="/reset",
    )  # fmt: skip


def test_a_server_starts_warms_up_resets_tells_its_counters_and_is_gone(tmp_path: Path) -> None:
    warmed = []
    with Server(fake("well"), tmp_path / "s", warm_up=warmed.append) as server:
        assert warmed == [server]
        assert server.start_time_s
        assert server.start_time_s < 10
        assert server.scrape() == {'fake:resets_total{a="b c}"}': 0.0}
        assert server.reset_prefix_cache()  # the first try is refused: blocks are held for a moment
        assert server.scrape() == {'fake:resets_total{a="b c}"}': 2.0}
        assert (tmp_path / "s" / "site" / "a.txt").read_text() == "text"
        process = psutil.Process(server._process.pid)
        assert process.environ()["SEEN"] == f"{tmp_path}/s/x"
        assert os.getsid(process.pid) == process.pid
    assert not process.is_running()
    assert not list(orphans.records_dir().glob("*"))


def test_a_server_that_dies_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"(?s)ended \(exit 1\).*CUDA out of memory, or so"):
        Server(fake("dies"), tmp_path).__enter__()


@pytest.mark.parametrize(("mode", "said"), [("hangs", "no answer|ConnectionRefused"), ("unready", "answers 503")])
def test_a_server_that_hangs_is_ended_with_the_reason(tmp_path: Path, mode: str, said: str) -> None:
    with pytest.raises(ServerError, match=rf"(?s)not healthy after 2 s .*({said}).*fake server (\d+)") as caught:
        Server(fake(mode), tmp_path, start_timeout_s=2).__enter__()
    assert not psutil.pid_exists(int(str(caught.value).rsplit(" ", 1)[1]))


def test_the_whole_family_ends_even_when_it_ignores_sigterm(tmp_path: Path) -> None:
    with Server(fake("stubborn"), tmp_path, stop_timeout_s=1) as server:
        family = psutil.Process(server._process.pid)
        family = [family, *family.children(recursive=True)]
        assert len(family) == 3
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)


def test_a_server_that_dies_later_is_noticed(tmp_path: Path) -> None:
    with Server(fake("well"), tmp_path) as server:
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        with pytest.raises(ServerError, match=r"ended \(exit -9\)"):
            server.check_alive()
        with pytest.raises(ServerError, match="ConnectionRefused"):
            server.scrape()


def test_a_held_prefix_cache_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 6))
    with Server(fake("held"), tmp_path) as server, monkeypatch.context() as patch:
        patch.setattr("workloads.inference.servers.server.time.monotonic", lambda: next(clock))
        with pytest.raises(ServerError, match="the prefix cache was not emptied"):
            server.reset_prefix_cache()


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(SpecError, match=r"port \d+: cannot be used \(Address already in use\); stop what listens there"):
            Server(fake("well", holder.getsockname()[1]), tmp_path).__enter__()
    assert not (tmp_path / "server.log").exists()


def test_after_kill_9_the_next_start_ends_the_orphan_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    harness = subprocess.Popen([sys.executable, "-c", f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_servers import *
with Server(fake("family", {port}), Path({str(tmp_path / "first")!r})) as server:
    print(server._process.pid, flush=True)
    time.sleep(600)
"""], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])  # fmt: skip
    leader = psutil.Process(int(harness.stdout.readline()))
    family = [leader, *leader.children(recursive=True)]
    assert len(family) == 3
    bystander = subprocess.Popen([sys.executable, str(FAKE), str(free_port()), "well"], stdout=subprocess.DEVNULL)
    try:
        assert orphans.end_orphans() == []  # its harness lives: not an orphan
        harness.kill()
        harness.communicate()
        leader.kill()  # even when the leader is gone the workers are found
        time.sleep(0.2)
        with Server(fake("well", port), tmp_path / "second"):
            assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)
            assert bystander.poll() is None
            assert len(list(orphans.records_dir().glob("*.json"))) == 1
    finally:
        bystander.kill()
        bystander.wait()


def test_a_reused_pid_is_not_an_orphan(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        orphans.records_dir().mkdir(parents=True)
        (orphans.records_dir() / "t.json").write_text(f'{{"owner": [{os.getpid()}, 1.0], "seen": [[{bystander.pid}, 1.0]]}}')
        assert orphans.end_orphans() == []
        assert bystander.poll() is None
        assert not list(orphans.records_dir().glob("*"))
    finally:
        bystander.kill()
        bystander.wait()


def test_someone_elses_endpoint_is_asked_and_left_running(tmp_path: Path) -> None:
    settings = Settings("fp32", 256, 0.4, 3)
    with Server(fake("well"), tmp_path / "a") as theirs:
        how = frameworks.serve("openai", "gpt", Settings("fp32", 256, 0.4, 3, endpoint_url=theirs.how.url + "/v1/"), 0)
        assert (how.argv, how.url, how.model) == ((), theirs.how.url, "gpt")
        with Server(how, tmp_path / "b") as server:
            assert server.scrape() is None
            assert server.start_time_s is None
            assert not server.reset_prefix_cache()  # nobody knows what it holds
        theirs.check_alive()
    with pytest.raises(SpecError, match="endpoint_url = '': not a URL; give one such as"):
        frameworks.serve("openai", "gpt", settings, 0)


def test_prometheus_text() -> None:
    text = '# TYPE a counter\na 1\na_bucket{le="+Inf"} 3 1700000000\nb NaN\n\na:c{x="}"} 1e3\n'
    assert parse(text, "a") == {"a": 1.0, 'a_bucket{le="+Inf"}': 3.0, 'a:c{x="}"}': 1000.0}
    for strange in ("a", "a one", 'a{x="1"}', "<html>"):
        with pytest.raises(ValueError, match="could not convert"):
            parse(strange)
