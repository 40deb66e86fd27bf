"""vLLM's real server on this machine, through the same life as the fake one."""

import json
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.inference.real_server import Running, by_transformers, chats
from workloads.inference import frameworks
from workloads.inference.frameworks.base import Settings
from workloads.inference.servers.ports import free_port
from workloads.inference.servers.server import Server


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(frameworks.engine_version("vllm") is None, reason="vllm is not installed")
@pytest.mark.parametrize("prefix_cache", [False, True])
def test_vllm_serves_counts_resets_and_is_gone(tiny_model: Path, tmp_path: Path, prefix_cache: bool) -> None:
    settings = Settings("fp32", 256, 0.4, 3, prefix_cache=prefix_cache)
    how = frameworks.serve("vllm", str(tiny_model), settings, free_port())
    with Server(how, tmp_path, start_timeout_s=300) as server:
        leader = psutil.Process(server._process.pid)
        family = [leader, *leader.children(recursive=True)]
        print(f"ready after {server.start_time_s:.1f} s, {sum(p.memory_info().rss for p in family) / 2**30:.1f} GiB in {len(family)}")
        before = server.scrape()
        ids = list(range(100, 300))  # more than a block of the CPU backend (128), so that a prefix can be kept
        # ignore_eos and min_tokens with token ids: the equal work that every comparison needs.
        body = {"model": how.model, "prompt": ids, "max_tokens": 5, "min_tokens": 5, "ignore_eos": True, "temperature": 0}
        for _ in range(2):
            request = urllib.request.Request(how.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                usage = json.load(reply)["usage"]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (200, 5)
        assert server.reset_prefix_cache()
        after, told, asked_s = server.scrape(), server.figures(30), time.monotonic()
        for _ in range(20):
            server.figures(30)
        print(f"its metrics take {(time.monotonic() - asked_s) / 20 * 1e3:.1f} ms")
    assert None not in told.values(), "every figure of ours is one of vLLM's"
    assert (told["prompt_tokens"], told["output_tokens"], told["running"], told["waiting"]) == (400, 10, 0, 0)
    assert (told["cached_prompt_tokens"] > 0) == prefix_cache
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)

    def gained(name: str) -> float:
        return sum(value - before.get(key, 0.0) for key, value in after.items() if key.split("{")[0] == name)

    assert gained("vllm:prompt_tokens_total") == 400
    assert gained("vllm:generation_tokens_total") == 10
    assert (gained("vllm:prefix_cache_hits_total") > 0) == prefix_cache


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(frameworks.engine_version("vllm") is None, reason="vllm is not installed")
def test_vllm_serves_the_tokens_of_transformers(embedded: Path, tokenizer, tmp_path: Path) -> None:
    settings, prompts = Settings("fp32", 256, 0.4, 3), chats(tokenizer)
    with Server(frameworks.serve("vllm", str(embedded), settings, free_port()), tmp_path, start_timeout_s=300) as server:
        answers = Running(server).ask(prompts, 48)
    # Several of them have an end token inside: the length must be forced by ignore_eos alone.
    assert [a.token_ids for a in answers] == by_transformers(embedded, settings, prompts, 48, ignore_eos=True)
