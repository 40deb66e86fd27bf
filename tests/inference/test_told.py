"""What a result says of things that nobody told it: token counts, where a model ended, how many requests a trace has, a version."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ncdemo.report.fairness import flags
from ncdemo.spec.bench import Slo
from ncdemo.spec.common import ModelRef
from ncdemo.spec.sweep import PlannedCell, SubjectKey
from ncdemo.spec.traffic import Load
from tests.inference.conftest import Swept
from workloads.inference.frameworks.base import Answer
from workloads.inference.metrics import cell, itl_s, request_record

MS = 1_000_000
PLAN = PlannedCell(SubjectKey("openai", ModelRef(name="m"), "fp32", 1, None), Load(kind="closed", concurrency=1), None, 0)


def untold(text_tokens: int | None, index: int = 0, **changes):
    """Two chunks of four words each, from a server that counts nothing."""
    answer = Answer(index, 0, 0, [20 * MS, 60 * MS], [1, 1], text="one two three four five six seven eight", chunk_tokens_from="one_each",
                    finish_reason="length", http_status=200)  # fmt: skip
    for name, value in changes.items():
        setattr(answer, name, value)
    return request_record(answer, PLAN, prompt_tokens=3, zero_ns=0, text=answer.text, text_tokens=text_tokens)


def test_two_chunks_of_four_words_are_not_two_tokens() -> None:
    nobody, tokenizer = untold(None), untold(8)
    for r in (nobody, tokenizer):
        assert (r.ok, r.tpot_s, itl_s(r), r.chunk_tokens, r.chunk_tokens_from) == (True, None, [], None, "one_each")
        assert (r.finish_reason, r.http_status, r.ttft_s) == ("length", 200, 0.02)
    assert (nobody.output_tokens, nobody.output_tokens_from, nobody.normalized_latency_s) == (None, None, None)
    assert (tokenizer.output_tokens, tokenizer.output_tokens_from, tokenizer.normalized_latency_s) == (8, "text", pytest.approx(0.06 / 8))


def test_a_cell_of_such_answers_has_no_invented_rate_and_is_flagged() -> None:
    c = cell([untold(8), untold(8, 1)], PLAN, Slo(), expected_tokens=[8, 8])
    assert (c.output_tokens, c.tokens_from_text, c.tpot_s, c.itl_s) == (16, 2, None, None)
    assert c.equal_output_tokens is None, "a count of the text can't prove it"
    assert "the server told no token counts for 2 answers: their tokens were counted from the text" in flags(c)
    uncounted = cell([untold(8), untold(None, 1)], PLAN, Slo(), expected_tokens=None)
    assert (uncounted.output_tokens, uncounted.output_tokens_per_s, uncounted.requests_per_s) == (None, None, pytest.approx(2 / 0.06))


@pytest.mark.parametrize(("told", "equal"), [({"output_tokens": 8, "chunk_tokens_from": "unknown"}, None), ({"error": "closed"}, False)])
def test_an_answer_that_was_counted_or_failed_still_decides_whether_lengths_are_equal(told: dict, equal: bool | None) -> None:
    assert cell([untold(8), untold(None, 1, **told)], PLAN, Slo(), expected_tokens=[8, 8]).equal_output_tokens is equal


@pytest.fixture
def right_answer(tmp_path: Path) -> dict:
    """A prompt whose reference is what the canned server begins with."""
    file = tmp_path / "asked.jsonl"
    file.write_text(json.dumps({"prompt": "Say it.", "reference": "the of one"}))
    return {"file": str(file), "count": 12}


def test_an_endpoint_that_counts_nothing_has_its_text_counted_and_no_end_is_known(
    swept: Callable[..., Swept], endpoint: Callable[..., str], right_answer: dict
) -> None:
    sampling = {"max_new_tokens": 3, "ignore_eos": True}
    done = swept(engines=["openai"], url=endpoint("--fault", "no_usage=1"), concurrency=[4], prompts=right_answer, sampling=sampling)
    (c,) = done.cells
    assert (c.failed, c.tokens_from_text, c.itl_s, c.equal_output_tokens) == (0, 12, None, None), done.said
    assert c.tpot_s.count == 12
    r = done.requests[0]
    assert 0 < r.first_chunk_tokens < r.output_tokens, "of its text too"
    assert r.tpot_s == pytest.approx((r.chunk_s[-1] - r.chunk_s[0]) / (r.output_tokens - r.first_chunk_tokens))
    assert {(r.text, r.output_tokens_from, r.chunk_tokens_from, r.finish_reason, r.http_status) for r in done.requests} == {
        (" the of one", "text", "one_each", "length", 200)
    }
    assert c.output_tokens == sum(r.output_tokens for r in done.requests) > 0
    assert (c.exact_match, c.exact_match_examples) == (None, None), "texts may have run on after the model's end, and no ids say where"


def test_answers_that_ended_themselves_are_right_or_wrong(swept: Callable[..., Swept], right_answer: dict) -> None:
    (c,) = swept(prompts=right_answer, sampling={"max_new_tokens": 3, "ignore_eos": False}).cells
    assert (c.exact_match, c.exact_match_examples) == (1.0, 12)


def test_a_failed_cell_of_a_trace_has_the_traces_requests(swept: Callable[..., Swept], tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = ["2023-11-16 18:17:03.0,12,3", "2023-11-16 18:17:03.2,900,4", "2023-11-16 18:17:03.4,15,5"]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    (cell,) = swept(engines=["lmdeploy"], concurrency=None, trace={"file": str(trace)}).cells
    assert (cell.failure, cell.requests, cell.failed) == ("engine_missing", 2, 2), "24 is prompts.count; one row is too long"
