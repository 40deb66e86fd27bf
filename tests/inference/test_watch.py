"""What an engine's own metrics say of a cell, and that nothing they do harms it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ncdemo.spec.result_engine import EngineCounts, EngineSample
from workloads.inference.frameworks.base import Serve
from workloads.inference.servers.prometheus import figures, parse
from workloads.inference.servers.server import Server
from workloads.inference.servers.watch import EngineLines, Watch
from workloads.records import Records

FIGURES = (("running", "e:running"), ("waiting", "e:waiting"), ("kv_cache_used", "e:cache"), ("output_tokens", "e:out_total"))


class Engine:
    """A server that says of itself what a test wants it to."""

    def __init__(self) -> None:
        self.text, self.status, self.asked = "", 200, 0
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                engine.asked += self.path == "/metrics"
                body = engine.text.encode() if self.path == "/metrics" else b""
                self.send_response(engine.status if self.path == "/metrics" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def says(self, running: float, waiting: float, out: float) -> None:
        self.text = f'e:running{{rank="0"}} {running}\ne:waiting{{rank="0"}} {waiting}\ne:out_total{{rank="0"}} {out}\n'


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


@pytest.fixture
def watch(engine: Engine, tmp_path: Path) -> Iterator[Callable[[float], Watch]]:
    how = Serve((), engine.url, "m", metrics="/metrics", metrics_prefix="e:", figures=FIGURES)
    with Server(how, tmp_path / "server") as server:
        yield lambda every_s: Watch(server, EngineLines(Records(tmp_path, print).append, 0, engine="e", model="m", variant=None), every_s)


def lines(folder: Path) -> list[EngineSample]:
    return [EngineSample.model_validate_json(line) for line in (folder / "engines.jsonl").read_text().splitlines()]


def test_figures_are_summed_over_ranks_and_the_fullest_cache_counts() -> None:
    text = 'e:waiting{r="0"} 3\ne:waiting{r="1"} 4\ne:waiting_total 9\ne:cache{r="0"} 0.2\ne:cache{r="1"} 0.9\ne:running NaN\n'
    assert figures(parse(text), FIGURES) == {"running": None, "waiting": 7.0, "kv_cache_used": 0.9, "output_tokens": None}


def test_counters_are_differences_and_the_queue_is_seen_between(engine: Engine, watch: Callable[[float], Watch], tmp_path: Path) -> None:
    engine.says(0, 0, 100)
    with watch(0.02) as looking:
        engine.says(4, 12, 130)
        asked = engine.asked
        while engine.asked < asked + 4:
            pass
        engine.says(0, 0, 164)
    counts = looking.counts(0, time.perf_counter_ns())
    assert (counts.output_tokens, counts.prompt_tokens, counts.preemptions) == (64, None, None)
    assert counts.looks >= 3
    assert (counts.running_max, counts.waiting_max, counts.kv_cache_used_max) == (4, 12, None)
    assert 0 < counts.waiting_mean <= 12
    found = lines(tmp_path)
    assert len(found) == counts.looks + 2
    assert looking.counts(0, 1) == EngineCounts(output_tokens=64), "no look was in that window"
    assert (found[0].output_tokens, found[-1].output_tokens, found[0].engine) == (100, 164, "e")
    assert [one.time_s for one in found] == sorted(one.time_s for one in found)


def test_without_looks_between_the_queue_is_not_known(engine: Engine, watch: Callable[[float], Watch], tmp_path: Path) -> None:
    engine.says(0, 0, 1)
    with watch(0) as looking:
        engine.says(0, 0, 3)
    assert looking.counts(0, time.perf_counter_ns()) == EngineCounts(output_tokens=2)
    assert len(lines(tmp_path)) == 2


def test_a_counter_that_appears_began_at_nothing(engine: Engine, watch: Callable[[float], Watch]) -> None:
    engine.text = "e:running 0\n"
    with watch(0) as looking:
        engine.says(0, 0, 7)
    assert looking.counts(0, time.perf_counter_ns()).output_tokens == 7


def test_a_server_that_began_again_is_not_counted(engine: Engine, watch: Callable[[float], Watch]) -> None:
    engine.says(0, 0, 100)
    with watch(0) as looking:
        engine.says(0, 0, 5)
    assert looking.counts(0, time.perf_counter_ns()).output_tokens is None


@pytest.mark.parametrize("what", ["refuses", "nonsense", "nothing"])
def test_metrics_that_can_not_be_read_are_not_known(engine: Engine, watch: Callable[[float], Watch], tmp_path: Path, what: str) -> None:
    if what == "refuses":
        engine.status = 503
    engine.text = "e:running one\n" if what == "nonsense" else ""
    with watch(0.01) as looking:
        pass
    assert looking.counts(0, time.perf_counter_ns()) is None
    assert not (tmp_path / "engines.jsonl").exists()


def test_a_load_that_raises_is_not_held_up(engine: Engine, watch: Callable[[float], Watch]) -> None:
    engine.says(0, 0, 1)
    looking = watch(5.0)
    with pytest.raises(RuntimeError, match="the load"), looking:
        raise RuntimeError("the load")
    assert (looking.counts(0, time.perf_counter_ns()), engine.asked) == (None, 1), "a server that may be dead isn't asked again"


def test_a_line_that_a_kill_tore_spoils_none_after_it(tmp_path: Path) -> None:
    (tmp_path / "engines.jsonl").write_text('{"time_s": 1.0, "engi')
    EngineLines(Records(tmp_path, print).append, 0, engine="e", model="m", variant=None).add({"running": 2.0})
    torn, whole = (tmp_path / "engines.jsonl").read_text().splitlines()
    assert json.loads(whole)["running"] == 2.0
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(torn)


def test_a_disk_that_is_full_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    sample = EngineLines(Records(tmp_path / "gone", print).append, 0, engine="e", model="m", variant=None).add({"running": 2.0})
    assert sample.running == 2.0
