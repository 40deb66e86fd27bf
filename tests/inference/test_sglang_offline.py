"""SGLang's real engine started from this Python (mode: offline), without a GPU."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ncdemo.spec.traffic import Load
from tests.inference.real_server import by_transformers, chats
from tests.inference.real_sglang import CPU_ARGS, CPU_ENVIRONMENT, MARKS, PYTHON
from workloads.inference.asked import Asked
from workloads.inference.frameworks.base import Answer, Params, Prompt, Settings
from workloads.inference.subject import Worker

SETTINGS = Settings("fp32", 256, 0.1, 3, server_args=CPU_ARGS)
pytestmark = MARKS


@pytest.fixture(scope="module")
def worker(embedded: Path) -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NCDEMO_SGLANG_PYTHON", str(PYTHON))
        for name, value in CPU_ENVIRONMENT.items():
            patch.setenv(name, value)
        with Worker("sglang", str(embedded), SETTINGS, 600) as worker:
            assert worker.failed is None
            print(f"ready after {worker.load_time_s:.1f} s")
            yield worker
            start = time.monotonic()
    print(f"stopped after {time.monotonic() - start:.1f} s")


def ask(worker: Worker, prompts: list[Prompt], tokens: int, ignore_eos: bool) -> list[Answer]:
    what = Asked(prompts, [None] * len(prompts), [tokens] * len(prompts))
    answers = worker.measure(what, Load(kind="closed", concurrency=3), Params(3, tokens, ignore_eos, 0.0, 0))
    assert isinstance(answers, list), answers
    return sorted(answers, key=lambda a: a.index)


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_the_tokens_are_those_of_transformers(worker: Worker, tokenizer, embedded: Path, ignore_eos: bool) -> None:
    prompts = chats(tokenizer)
    answers = ask(worker, prompts, 48, ignore_eos)
    assert [a.error for a in answers] == [None] * 5
    print("tokens", [len(a.token_ids) for a in answers], "outputs", [len(a.chunk_ns) for a in answers])
    assert [a.token_ids for a in answers] == by_transformers(embedded, SETTINGS, prompts, 48, ignore_eos=ignore_eos)
    assert all(sum(a.chunk_tokens) == len(a.token_ids) and a.chunk_ns == sorted(a.chunk_ns) for a in answers)


def test_what_does_not_fit_is_its_own_failure(worker: Worker) -> None:
    fits, too_long = Prompt(0, tuple(range(100, 348))), Prompt(1, tuple(range(100, 349)))
    first, second = ask(worker, [fits, too_long], 8, ignore_eos=True)
    assert (first.error, len(first.token_ids)) == (None, 8)
    assert second.error == "prompt too long: 249 prompt and 8 output tokens, max_model_len is 256"
