"""SGLang's real server without a GPU, through our adapter, our lifecycle and our load client.

scripts/setup_sglang_cpu.sh makes the Python that it needs (3 GB). What sglang_cpu/site stands in for is never called: each such
kernel raises. PyTorch's own attention answers instead, so no speed seen here says anything about SGLang.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.inference.real_server import Running, by_transformers, chats
from tests.inference.real_sglang import CPU_ARGS, CPU_ENVIRONMENT, MARKS, PYTHON
from workloads.inference import frameworks
from workloads.inference.frameworks.base import Prompt, Settings
from workloads.inference.load import failures
from workloads.inference.servers.ports import free_port
from workloads.inference.servers.server import Server, ServerError

SETTINGS = Settings("fp32", 256, 0.1, 3, server_args=CPU_ARGS)
pytestmark = MARKS


@pytest.fixture(scope="module", params=[False, True], ids=["prefix_cache_off", "prefix_cache_on"])
def running(request: pytest.FixtureRequest, embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NCDEMO_SGLANG_PYTHON", str(PYTHON))
        how = frameworks.serve("sglang", str(embedded), replace(SETTINGS, prefix_cache=request.param), free_port())
    # Beside the adapter's own command only what makes a CPU do: for the server's processes, not for ours.
    env = (*how.env, *CPU_ENVIRONMENT.items())
    with Server(replace(how, env=env), tmp_path_factory.mktemp("sglang"), start_timeout_s=300) as server:
        running = Running(server)
        memory = sum(p.memory_full_info().pss for p in running.family) / 2**30
        print(f"ready after {server.start_time_s:.1f} s, {memory:.1f} GiB in {len(running.family)} processes")
        yield running
        start = time.monotonic()
    print(f"stopped after {time.monotonic() - start:.1f} s")
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in running.family)


@pytest.fixture(scope="module")
def prompts(tokenizer) -> list[Prompt]:
    return chats(tokenizer)


def test_answers_are_exact_counted_and_the_tokens_of_transformers(running: Running, prompts: list[Prompt], embedded: Path) -> None:
    asked, generated = running.counted("sglang:prompt_tokens_total"), running.counted("sglang:generation_tokens_total")
    answers = running.ask(prompts, 48)
    assert [a.error for a in answers] == [None] * 5
    assert [(a.prompt_tokens, a.output_tokens, a.finish_reason) for a in answers] == [(len(p.token_ids), 48, "length") for p in prompts]
    # A chunk of SGLang's may hold several tokens: only the ids that the adapter asks for say how many.
    assert [(a.chunk_tokens_from, sum(a.chunk_tokens)) for a in answers] == [("token_ids", 48)] * 5
    print("chunks", [len(a.chunk_ns) for a in answers])
    assert [a.token_ids for a in answers] == by_transformers(embedded, SETTINGS, prompts, 48, ignore_eos=True)
    assert running.counted("sglang:prompt_tokens_total") - asked == sum(len(p.token_ids) for p in prompts)
    assert running.counted("sglang:generation_tokens_total") - generated == 5 * 48
    told = running.server.figures(30)
    print("figures", told)
    assert {name for name, value in told.items() if value is None} <= {"preemptions", "cached_prompt_tokens"}, "counted once there is one"


def test_an_answer_ends_where_transformers_ends_it(running: Running, prompts: list[Prompt], tokenizer, embedded: Path) -> None:
    answers = running.ask(prompts, 48, ignore_eos=False)
    oracle = by_transformers(embedded, SETTINGS, prompts, 48, ignore_eos=False)
    print("ends", [(a.finish_reason, a.output_tokens) for a in answers])
    assert [a.finish_reason for a in answers] == ["length" if len(ids) == 48 else "stop" for ids in oracle]
    assert [a.text for a in answers] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in oracle]


def test_the_prefix_cache_is_off_or_emptied(running: Running) -> None:
    prompt, cached = [Prompt(0, tuple(range(1000, 1200)))], []
    for reset in (True, False, True):
        if reset:
            assert running.server.reset_prefix_cache()
        before = running.counted("sglang:cached_tokens_total")
        assert running.ask(prompt, 4)[0].error is None
        cached.append(running.counted("sglang:cached_tokens_total") - before)
    assert cached == ([0, 199, 0] if running.server.how.prefix_cache == "on" else [0, 0, 0])


def test_what_does_not_fit_is_its_own_failure(running: Running) -> None:
    prompts = [Prompt(0, tuple(range(100, 110))), Prompt(1, tuple(range(100, 400))), Prompt(2, tuple(range(100, 353)))]
    answers = running.ask(prompts, 8)
    assert [a.failure for a in answers] == [None, failures.HTTP_4XX, failures.HTTP_4XX]
    assert "The input (300 tokens) is longer than the model's context length (258 tokens)" in answers[1].error
    assert "You requested a total of 261 tokens" in answers[2].error
    # To the last token that our own rule (prompt + output <= max_model_len) lets through.
    assert running.ask([Prompt(0, tuple(range(100, 348)))], 8)[0].output_tokens == 8


def test_killed_in_mid_stream_every_request_says_so(running: Running, prompts: list[Prompt]) -> None:
    """The last of the module's: the server is gone afterwards."""
    begun = running.counted("sglang:time_to_first_token_seconds_count")

    def kill() -> None:
        deadline = time.monotonic() + 60
        while running.counted("sglang:time_to_first_token_seconds_count") < begun + 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in running.family:
            if process.is_running():
                os.kill(process.pid, 9)

    killer = threading.Thread(target=kill)
    killer.start()
    answers = running.ask(prompts, 200)
    killer.join()
    assert [a.failure for a in answers[:3]] == [failures.TRUNCATED] * 3
    assert {a.failure for a in answers[3:]} <= {failures.CONNECT_REFUSED, failures.CLOSED_EARLY}
    running.server._process.wait(30)
    with pytest.raises(ServerError, match=r"the server ended \(exit -9\)"):
        running.server.check_alive()
