"""Metrics against values computed by hand from the definitions in docs/measurement.md."""

from dataclasses import replace

import pytest

from ncdemo.spec.bench import Slo
from ncdemo.spec.common import ModelRef
from ncdemo.spec.sweep import PlannedCell, SubjectKey
from ncdemo.spec.traffic import Load
from workloads.inference.frameworks.base import Answer
from workloads.inference.metrics import cell, distribution, itl_s, lag, meets, percentile, request_record, samples_needed, steady
from workloads.inference.starts import agreement

MS = 1_000_000
PLAN = PlannedCell(SubjectKey("echo", ModelRef(name="m"), "fp32", 1, None), Load(kind="closed", concurrency=1), None, 0)


def record(answer: Answer, **changes):
    return request_record(answer, PLAN, **({"prompt_tokens": 5, "zero_ns": 0, "text": None} | changes))


def answer(
    index: int = 0, sent: int = 100, chunks: tuple[int, ...] = (300, 350, 450), tokens: tuple[int, ...] = (1, 1, 2), scheduled: int = 40
) -> Answer:
    ids = list(range(sum(tokens)))
    return Answer(index, scheduled * MS, sent * MS, [c * MS for c in chunks], list(tokens), ids)


def test_one_request_by_hand() -> None:
    r = record(answer())
    assert r.ttft_s == pytest.approx(0.200)
    assert r.ttft_from_schedule_s == pytest.approx(0.260)
    assert r.e2e_s == pytest.approx(0.350)
    assert r.tpot_s == pytest.approx(0.150 / 3)  # (450 - 300) / (4 - 1)
    assert r.normalized_latency_s == pytest.approx(0.350 / 4)
    assert itl_s(r) == pytest.approx([0.050, 0.050, 0.050])  # 50 / 1, then 100 / 2 twice


def test_tpot_counts_the_tokens_after_the_first_chunk() -> None:
    assert record(answer(chunks=(300, 400), tokens=(3, 2))).tpot_s == pytest.approx(0.100 / 2)
    assert record(answer(chunks=(300,), tokens=(4,))).tpot_s is None


def test_a_request_without_tokens_failed_and_has_no_numbers() -> None:
    r = record(Answer(0, 0, 0))
    assert not r.ok
    assert r.error == "no output token"
    assert (r.ttft_s, r.e2e_s, r.tpot_s, r.normalized_latency_s) == (None, None, None, None)


def test_stamps_count_from_the_runs_zero() -> None:
    r = record(answer(), zero_ns=50 * MS)
    assert r.sent_s == pytest.approx(0.050)
    assert r.chunk_s == pytest.approx([0.250, 0.300, 0.400])


def test_a_percentile_needs_enough_samples() -> None:
    assert [samples_needed(p) for p in (0.5, 0.9, 0.99)] == [11, 64, 662]
    assert percentile(range(10), 0.5) is None
    assert percentile(range(1, 12), 0.5) == 6
    assert percentile(range(63), 0.9) is None
    assert percentile(range(1, 101), 0.9) == 90
    assert percentile(range(1, 1001), 0.99) == 990


def test_distribution_of_nothing_is_none() -> None:
    assert distribution([]) is None
    few = distribution([3.0, 1.0, 2.0])
    assert (few.count, few.mean, few.min, few.max, few.p50) == (3, 2.0, 1.0, 3.0, None)


def test_a_cell_by_hand() -> None:
    slo = Slo(ttft_s=0.25, tpot_s=0.06)
    records = [
        record(answer(0)),  # ttft 200 ms, tpot 50 ms: good
        record(answer(1, sent=150, chunks=(450, 500), tokens=(1, 3))),  # ttft 300 ms: a miss
        record(Answer(2, 0, 160 * MS, error="refused")),  # a failure is a miss
    ]
    c = cell(records, PLAN, slo, expected_tokens=[4] * 3)
    assert (c.requests, c.failed) == (3, 1)
    assert c.window_s == pytest.approx(0.400)  # 100 to 500 ms
    assert c.output_tokens_per_s == pytest.approx(8 / 0.4)
    assert c.requests_per_s == pytest.approx(2 / 0.4)
    assert c.slo_attainment == pytest.approx(1 / 3)
    assert c.goodput_rps == pytest.approx(1 / 0.4)
    assert c.equal_output_tokens is False  # the failure yielded none
    assert (c.asked_output_tokens, c.equal_prompt_tokens) == (12, None)


def test_requests_that_failed_after_the_last_good_answer_are_in_the_window() -> None:
    """A server that died after a second of ten made one good request in ten seconds, not one a second."""
    records = [record(answer(0, sent=0, chunks=(500, 1000), tokens=(1, 1)))]
    records += [record(Answer(i, i * 1000 * MS, i * 1000 * MS, error="refused")) for i in range(1, 11)]
    c = cell(records, PLAN, Slo(tpot_s=1), expected_tokens=None)
    assert c.window_s == pytest.approx(10)
    assert c.goodput_rps == pytest.approx(0.1)


def untold(first_tokens: int | None, gap_ms: int, chunks: int = 4):
    """A usage of 12 tokens in few chunks, from a server that doesn't tell how many tokens each of them has."""
    one = answer(sent=0, chunks=tuple(100 + i * gap_ms for i in range(chunks)), tokens=(1,) * chunks)
    one.output_tokens, one.chunk_tokens_from, one.token_ids = 12, "unknown", []
    return request_record(one, PLAN, prompt_tokens=5, zero_ns=0, text=None, first_tokens=first_tokens)


@pytest.mark.parametrize(("first_tokens", "tpot_s"), [(1, 0.9 / 11), (3, 0.9 / 9), (12, None)])
def test_chunks_of_several_tokens_have_the_tpot_of_their_tokens(first_tokens: int, tpot_s: float | None) -> None:
    r = untold(first_tokens, gap_ms=300)
    assert (r.first_chunk_tokens, r.tpot_s, itl_s(r)) == (first_tokens, tpot_s and pytest.approx(tpot_s), [])
    assert cell([r], PLAN, Slo(tpot_s=0.11), expected_tokens=None).slo_attainment == (tpot_s is not None)


def test_an_answer_in_one_chunk_has_no_time_per_token() -> None:
    r = untold(None, gap_ms=0, chunks=1)
    assert (r.first_chunk_tokens, r.tpot_s) == (12, None)
    assert cell([r], PLAN, Slo(ttft_s=0.2), expected_tokens=None).slo_attainment == 1, "its first token says all of it"
    assert cell([r], PLAN, Slo(ttft_s=0.05), expected_tokens=None).slo_attainment == 0


@pytest.mark.parametrize(("gap_ms", "good"), [(90, 1), (110, 0)])
def test_an_objective_for_tpot_is_not_met_because_nobody_knows_it(gap_ms: int, good: int) -> None:
    """Without the first chunk's tokens TPOT can't be known, but it is no more than the gap of chunks of one token each."""
    r = untold(None, gap_ms)
    assert r.tpot_s is None
    assert cell([r], PLAN, Slo(tpot_s=0.1), expected_tokens=None).slo_attainment == good


@pytest.mark.parametrize(("load", "good"), [(Load(kind="closed", concurrency=1), True), (Load(kind="poisson", rate_rps=1.0), False)])
def test_an_open_loop_is_judged_from_when_a_request_was_due(load: Load, good: bool) -> None:
    waited = answer(scheduled=40, sent=100, chunks=(300, 350), tokens=(1, 1))  # 200 ms since it was sent, 260 since it was due
    assert meets(request_record(waited, PLAN.at(load), prompt_tokens=5, zero_ns=0, text=None), Slo(ttft_s=0.25, tpot_s=1)) is good


def test_the_steady_part_leaves_filling_and_draining_out() -> None:
    records = [
        record(answer(0, sent=0, chunks=(100, 200), tokens=(1, 1))),
        record(answer(1, sent=0, chunks=(150, 250, 350), tokens=(1, 2, 4))),
        record(answer(2, sent=340, chunks=(440, 540), tokens=(1, 1))),
    ]
    assert steady(records) == (pytest.approx(0.14), pytest.approx(2 / 0.14))  # from 200 to 340 ms, two tokens at 250
    assert steady(records[:2]) is None, "all was sent before an answer had ended"
    c = cell(records, PLAN, Slo(), expected_tokens=None)
    assert (c.steady_s, c.steady_output_tokens_per_s) == (pytest.approx(0.14), pytest.approx(2 / 0.14))
    assert (c.icl_s.count, c.icl_s.max) == (4, pytest.approx(0.1))


@pytest.mark.parametrize(("waves", "expected"), [(2, None), (3, 760), (6, 760)])
def test_a_steady_part_of_milliseconds_has_no_rate(waves: int, expected: float | None) -> None:
    """8 streams of 19 tokens each 200 ms make 760 tokens/s; between two waves there are but the streams' few milliseconds of difference."""
    records = [
        record(answer(8 * wave + i, sent=200 * wave + i // 2, chunks=tuple(200 * wave + i // 2 + 10 * k for k in range(1, 20)), tokens=(1,) * 19))
        for wave in range(waves)
        for i in range(8)
    ]  # fmt: skip
    found = steady(records)
    assert (found and found[1]) == (expected and pytest.approx(expected, rel=0.04))


def test_how_far_answers_fall_behind_by_hand() -> None:
    def sent_each_second(ends_ms: list[int]) -> list:
        return [record(answer(i, sent=1000 * i, chunks=(end - 10, end), tokens=(1, 1))) for i, end in enumerate(ends_ms)]

    quick = sent_each_second([1000 * i + 400 for i in range(10)])  # of five in the second half, from 4.5 to 9 s, the last is on its way
    assert lag(quick) == (pytest.approx(0.2), pytest.approx(2 * 1 / 5))
    slow = sent_each_second([2000 * i + 1000 for i in range(10)])  # one in two seconds: three on their way at 4.5 s, five at 9 s
    assert lag(slow) == (pytest.approx(0.4), pytest.approx(2 * 8**0.5 / 5))
    assert lag([*slow, record(Answer(10, 0, 9000 * MS, error="refused"))]) == lag(slow), "a failure neither waits nor ends"
    assert lag(quick[:1]) is None
    c = cell(slow, replace(PLAN, load=Load(kind="constant", rate_rps=1)), Slo(), expected_tokens=None)
    assert (c.sends_s, c.lag, c.least_e2e_s) == (pytest.approx(9), pytest.approx(0.4), pytest.approx(1))
    assert cell(slow, PLAN, Slo(), expected_tokens=None).lag is None, "a closed loop waits for its answers"


def test_a_cell_in_which_all_failed_has_a_reason_and_no_numbers() -> None:
    c = cell([record(Answer(0, 0, 0, error="out of memory"))], PLAN, Slo(), expected_tokens=[4])
    assert (c.failed, c.error, c.window_s, c.output_tokens_per_s, c.slo_attainment) == (1, "out of memory", None, None, None)


def test_agreement_is_the_share_of_equal_leading_tokens() -> None:
    reference = {0: [1, 2, 3, 4], 1: [5, 6]}
    assert agreement(reference, reference) == 1.0
    assert agreement({0: [1, 2, 9, 4], 1: [5, 6]}, reference) == pytest.approx((0.5 + 1) / 2)
    assert agreement({0: [1, 2]}, reference) == pytest.approx(0.5)
    assert agreement({7: [1]}, reference) is None
