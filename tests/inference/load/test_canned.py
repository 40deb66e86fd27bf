"""The canned server, through a client that isn't ours."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ncdemo.spec.base import SpecError
from workloads.inference.load.canned.faults import FAULTS, drawn, parse

BODY = {"model": "m", "stream": True, "max_tokens": 5, "prompt": [7, 8, 9], "stream_options": {"include_usage": True}}


def _events(text: str) -> list:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_streams_as_an_engine_does(canned: Callable[..., str], path: str) -> None:
    url = canned()
    answer = httpx.post(url + path, json=BODY)
    events = _events(answer.text)
    choices = [c for event in events for c in event["choices"]]
    texts = [c["text"] if "text" in c else c["delta"].get("content") for c in choices]
    assert "".join(filter(None, texts)) == " the of one day in"
    assert choices[-1]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 5
    assert answer.text.endswith("data: [DONE]\n\n")


def test_health_models_metrics_and_whole_answers(canned: Callable[..., str]) -> None:
    url = canned("--model", "tiny", "--max-model-len", "8")
    assert httpx.get(url + "/health").status_code == 200
    assert httpx.get(url + "/v1/models").json()["data"][0]["id"] == "tiny"
    assert httpx.post(url + "/v1/completions", json=BODY | {"stream": False}).json()["usage"]["completion_tokens"] == 5
    refused = httpx.post(url + "/v1/completions", json=BODY | {"max_tokens": 6})
    assert (refused.status_code, "maximum context length is 8" in refused.text) == (400, True)
    assert "canned:generation_tokens_total 5\n" in httpx.get(url + "/metrics").text


def test_keeps_its_schedule_and_logs_it(canned: Callable[..., str], sends: Callable[[int], list[dict]]) -> None:
    httpx.post(canned("--ttft-ms", "50", "--itl-ms", "10") + "/v1/completions", json=BODY, headers={"X-Request-Id": "r1"})
    (log,) = sends(1)
    assert (log["request_id"], log["tokens"]) == ("r1", [1] * 5)
    late_ms = [(ns - log["received_ns"]) / 1e6 - 50 - 10 * i for i, ns in enumerate(log["send_ns"])]
    assert min(late_ms) >= 0
    assert statistics.median(late_ms) < 20  # a busy machine holds single sends up


def test_streams_share_a_capacity(canned: Callable[..., str]) -> None:
    """40 tokens at 200 a second take 0.2 s, whether one stream or four have them."""
    url = canned("--capacity-tps", "200")
    took = []
    for streams in (1, 4):
        body = BODY | {"max_tokens": 40 // streams}
        with ThreadPoolExecutor(streams) as pool:
            start = time.perf_counter()
            texts = [answer.text for answer in pool.map(lambda body: httpx.post(url + "/v1/completions", json=body), [body] * streams)]
            took.append(time.perf_counter() - start)
        assert [_events(text)[-1]["usage"]["completion_tokens"] for text in texts] == [40 // streams] * streams
    assert min(took) > 39 / 200
    assert max(took) < 1, "nothing hangs"


def test_a_capacity_and_a_pace_are_refused() -> None:
    command = [sys.executable, "-m", "workloads.inference.load.canned", "--capacity-tps", "5", "--itl-ms", "20"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (out.returncode, "--capacity-tps: must be above 0 and alone decide the pace" in out.stderr) == (2, True)


def test_totals_of_drawn_faults_depend_on_the_seed_alone() -> None:
    chances = parse(["http_500=0.25", "hang=0.25"])
    first, again = ([drawn(chances, 3, n) for n in range(1000)] for _ in range(2))
    assert first == again
    assert all(200 < first.count(kind) < 300 for kind in chances)
    assert first != [drawn(chances, 4, n) for n in range(1000)]


@pytest.mark.parametrize("option", ["nothing=0.5", "hang", "hang=2", "hang=x"])
def test_refuses_a_fault_it_does_not_know(option: str) -> None:
    with pytest.raises(SpecError, match="give KIND=P"):
        parse([option])


def test_probabilities_add_up_to_one_at_most() -> None:
    with pytest.raises(SpecError, match=r"add up to 1\.2"):
        parse(["hang=0.6", "truncate=0.6"])


def test_help_names_every_fault() -> None:
    out = subprocess.run([sys.executable, "-m", "workloads.inference.load.canned", "--help"], capture_output=True, text=True, timeout=60)
    assert all(kind in out.stdout for kind in FAULTS)
