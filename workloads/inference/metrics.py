"""Stamps to metrics, for every engine alike. The definitions are those of docs/measurement.md; not measured is None."""

import math
from collections.abc import Sequence
from itertools import pairwise

from ncdemo.spec.bench import Slo
from ncdemo.spec.result_bench import Cell, Distribution, RequestRecord, TokensFrom, first_token
from ncdemo.spec.shares import wilson
from ncdemo.spec.sweep import PlannedCell
from workloads.inference.frameworks.base import Answer

CONFIDENCE = 0.99
PER_REQUEST = ("ttft_s", "ttft_from_schedule_s", "e2e_s", "tpot_s")


def request_record(
    answer: Answer,
    plan: PlannedCell,
    *,
    prompt_tokens: int,
    zero_ns: int,
    text: str | None,
    text_tokens: int | None = None,
    first_tokens: int | None = None,
) -> RequestRecord:
    """Return one request's record: s scheduled, t0 sent, t1 and tk first and last chunk, N tokens, n1 in the first chunk.

    `text_tokens`: the model's own tokenizer's count of the text, used where the server told none; `first_tokens` that of the first of
    several chunks, where the server told none of each.
    """

    def seconds(ns: int) -> float:
        return (ns - zero_ns) / 1e9

    n, n_from = _counted(answer, text_tokens)
    # Where a server's count is not that of its chunks, or it told none, nobody knows when each token came.
    known = answer.chunk_tokens_from not in ("unknown", "one_each") or not answer.chunk_ns
    ok = answer.error is None and n != 0
    base = RequestRecord(
        engine=plan.subject.engine, model=plan.subject.model.shown, variant=plan.subject.variant, setting=plan.setting,
        concurrency=plan.load.concurrency, repeat=plan.repeat, index=answer.index, ok=ok,
        error=answer.error or (None if ok else "no output token"), failure=answer.failure, http_status=answer.http_status,
        finish_reason=answer.finish_reason, prompt_tokens=prompt_tokens, output_tokens=n, output_tokens_from=n_from,
        server_prompt_tokens=answer.prompt_tokens, chunk_tokens_from=answer.chunk_tokens_from,
        token_ids=answer.token_ids or None, scheduled_s=seconds(answer.scheduled_ns), sent_s=seconds(answer.sent_ns),
        chunk_s=[seconds(ns) for ns in answer.chunk_ns], chunk_tokens=answer.chunk_tokens if known else None, text=text,
    )  # fmt: skip
    if not ok:
        return base
    first, last = answer.chunk_ns[0], answer.chunk_ns[-1]
    # A single chunk holds all there is.
    n1 = answer.chunk_tokens[0] if known else n if len(answer.chunk_ns) == 1 else first_tokens
    e2e = (last - answer.sent_ns) / 1e9
    return base.model_copy(
        update={
            "ttft_s": (first - answer.sent_ns) / 1e9,
            "ttft_from_schedule_s": (first - answer.scheduled_ns) / 1e9,
            "e2e_s": e2e,
            "first_chunk_tokens": n1,
            "tpot_s": (last - first) / 1e9 / (n - n1) if n is not None and n1 is not None and n > n1 else None,
            "normalized_latency_s": e2e / n if n else None,
        }
    )


def _counted(answer: Answer, text_tokens: int | None) -> tuple[int | None, TokensFrom | None]:
    """Return how many tokens an answer has and who says so."""
    if answer.output_tokens is not None:
        return answer.output_tokens, "usage"
    if answer.chunk_tokens_from in ("engine", "token_ids"):
        return sum(answer.chunk_tokens), answer.chunk_tokens_from
    if not answer.chunk_ns:
        return 0, None
    return (None, None) if text_tokens is None else (text_tokens, "text")


def itl_s(record: RequestRecord) -> list[float]:
    """Return gaps between chunks / tokens of the later chunk, once for each of its tokens; none where those aren't known."""
    if record.chunk_tokens is None:
        return []
    gaps = zip(pairwise(record.chunk_s), record.chunk_tokens[1:], strict=True)
    return [(b - a) / tokens for (a, b), tokens in gaps for _ in range(tokens)]


def steady(records: Sequence[RequestRecord]) -> tuple[float, float] | None:
    """Return the length of the steady part, first answer's end to last send, in seconds, and its output tokens/s.

    None where that is shorter than half of what a request takes on average, so that what its edges cut off would decide the rate:
    two waves of a closed loop leave milliseconds between them. None too where tokens of a chunk aren't known.
    """
    done = [r for r in records if r.ok]
    start, end = min(r.chunk_s[-1] for r in done), max(r.sent_s for r in records)
    e2e_s = math.fsum(r.chunk_s[-1] - r.sent_s for r in done) / len(done)
    if end - start < max(e2e_s / 2, 1e-9) or any(r.chunk_tokens is None for r in done):
        return None
    came = (zip(r.chunk_s, r.chunk_tokens or (), strict=True) for r in done)
    return end - start, sum(tokens for pairs in came for at, tokens in pairs if start < at <= end) / (end - start)


def lag(records: Sequence[RequestRecord]) -> tuple[float, float] | None:
    """Return by how much answers fell behind the sends of an open loop in the second half of them, and the noise of that.

    Both as shares of the requests sent in it; the formulas are Cell.lag's. None where none of those sent in it was answered.
    """
    done = [r for r in records if r.ok]
    start, end = min(r.sent_s for r in records), max(r.sent_s for r in records)
    middle = (start + end) / 2
    sent = sum(middle < r.sent_s for r in done)
    if not sent:
        return None
    in_flight = [sum(r.sent_s <= at < r.chunk_s[-1] for r in done) for at in (middle, end)]
    return (in_flight[1] - in_flight[0]) / sent, 2 * math.sqrt(sum(in_flight)) / sent


def distribution(values: Sequence[float]) -> Distribution | None:
    """Return order statistics, or None without values."""
    if not values:
        return None
    ranked = sorted(values)
    points = {name: percentile(ranked, p) for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return Distribution(count=len(ranked), mean=math.fsum(ranked) / len(ranked), min=ranked[0], max=ranked[-1], **points)


def percentile(ranked: Sequence[float], p: float) -> float | None:
    """Return the p-quantile (nearest rank) of sorted values, or None when too few bound it at 0.99 confidence.

    MLPerf's early stopping with one overrun allowed asks 11 samples for p50, 64 for p90 and 662 for p99.
    """
    if len(ranked) < samples_needed(p):
        return None
    return ranked[min(len(ranked) - 1, math.ceil(p * len(ranked)) - 1)]


def samples_needed(p: float) -> int:
    """Return the least n whose second largest value bounds the p-quantile: n p^(n-1) (1-p) + p^n <= 1 - confidence."""
    n = 2
    while n * p ** (n - 1) * (1 - p) + p**n > 1 - CONFIDENCE:
        n += 1
    return n


def wilson_low(good: int, sent: int, confidence: float = 0.95) -> float:
    """Return Wilson's lower bound of a share, one-sided: the share is at least this with the given confidence."""
    if sent == 0:
        return 0.0
    return max(0.0, wilson(good / sent, sent, 2 * confidence - 1)[0])  # its lower end at two-sided 2c - 1 is the bound at one-sided c


def attained_low(measured: Cell, confidence: float) -> float | None:
    """Return Wilson's lower bound of a cell's attainment at a confidence of choice; None where it wasn't measured."""
    share = measured.slo_attainment
    return None if share is None else wilson_low(round(share * measured.requests), measured.requests, confidence)


def meets(record: RequestRecord, slo: Slo) -> bool:
    """Say whether a request surely met every objective; a failure did not.

    In an open loop the first token is due since the request was: who waits for a late client or in a queue before it waits too.
    Where it isn't known how many tokens the first chunk had, each after it had one at least, so TPOT is at most their mean gap.
    """
    tpot_s = record.tpot_s
    if tpot_s is None and record.chunk_tokens is None and len(record.chunk_s) > 1:
        tpot_s = (record.chunk_s[-1] - record.chunk_s[0]) / (len(record.chunk_s) - 1)
    ttft_s = getattr(record, first_token(record.concurrency))
    return ttft_s is not None and ttft_s <= slo.ttft_s and (tpot_s is None or tpot_s <= slo.tpot_s)


def unmeasured(plan: PlannedCell, requests: int, failure: str, error: str) -> Cell:
    """Return the record of a cell without answers: a classified failure and no number."""
    return Cell(
        engine=plan.subject.engine, model=plan.subject.model.shown, variant=plan.subject.variant, setting=plan.setting,
        tensor_parallel_size=plan.subject.tensor_parallel, lengths=plan.lengths.shown if plan.lengths else None,
        concurrency=plan.load.concurrency, rate_rps=plan.load.rate_rps, searched=plan.load.search, repeat=plan.repeat,
        requests=requests, failed=requests, failure=failure, error=error,
    )  # fmt: skip


def cell(records: Sequence[RequestRecord], plan: PlannedCell, slo: Slo, *, expected_tokens: Sequence[int] | None) -> Cell:
    """Sum up the requests of one cell (at least one record). expected_tokens: what request i must yield, None when free."""
    done = [r for r in records if r.ok]
    if not done:
        return unmeasured(plan, len(records), records[0].failure or "no_answers", records[0].error or "no request was answered")
    start = min(r.sent_s for r in records)
    # Where the requests after the last good answer all failed, they were sent in the window all the same.
    window = max(*(r.chunk_s[-1] for r in done), *(r.sent_s for r in records)) - start
    steady_s, steady_tokens_per_s = steady(records) or (None, None)
    behind, noise = (None if plan.load.concurrency is not None else lag(records)) or (None, None)
    counts, good = [r.output_tokens for r in done if r.output_tokens is not None], sum(meets(r, slo) for r in done)
    tokens = sum(counts) if len(counts) == len(done) else None
    return unmeasured(plan, len(records), "", "").model_copy(
        update={
            "failed": len(records) - len(done),
            "failure": None,
            "error": None,
            "rate_rps": plan.load.rate_rps or (None if plan.load.concurrency is not None else _rate(records)),
            "start_s": start,
            "window_s": window,
            "output_tokens": tokens,
            "tokens_from_text": sum(r.output_tokens_from == "text" for r in done),
            "output_tokens_per_s": None if tokens is None else tokens / window,
            "steady_s": steady_s,
            "steady_output_tokens_per_s": steady_tokens_per_s,
            "requests_per_s": len(done) / window,
            "sends_s": max(r.sent_s for r in records) - start,
            "lag": behind,
            "lag_noise": noise,
            "least_e2e_s": None if tokens is None else min(r.normalized_latency_s or 0.0 for r in done) * tokens / len(done),
            "slo_attainment": good / len(records),
            "slo_attainment_low": wilson_low(good, len(records)),
            "goodput_rps": good / window,
            **{name: distribution([v for r in done if (v := getattr(r, name)) is not None]) for name in PER_REQUEST},
            "itl_s": distribution([gap for r in done for gap in itl_s(r)]),
            "icl_s": distribution([b - a for r in done for a, b in pairwise(r.chunk_s)]),
            "equal_output_tokens": None if expected_tokens is None else _equal_outputs(records, expected_tokens),
            "asked_output_tokens": None if expected_tokens is None else sum(expected_tokens[r.index] for r in records),
            "equal_prompt_tokens": _equal_prompts(done),
        }
    )


def _rate(records: Sequence[RequestRecord]) -> float | None:
    """Return how many requests of a trace were due per second, after its first."""
    lasted = max(r.scheduled_s for r in records) - min(r.scheduled_s for r in records)
    return (len(records) - 1) / lasted if lasted else None


def _equal_outputs(records: Sequence[RequestRecord], expected: Sequence[int]) -> bool | None:
    """Say whether each answer has the tokens that were asked for; None where only the text says how many that were."""
    told = [r for r in records if not r.ok or r.output_tokens_from not in ("text", None)]
    return False if any(r.output_tokens != expected[r.index] for r in told) else True if len(told) == len(records) else None


def _equal_prompts(done: Sequence[RequestRecord]) -> bool | None:
    counted = [r for r in done if r.server_prompt_tokens is not None]
    return all(r.server_prompt_tokens == r.prompt_tokens for r in counted) if counted else None


def exact_match(records: Sequence[RequestRecord], references: Sequence[str | None]) -> tuple[float | None, int | None]:
    """Return the share of answers equal to their reference, outer white space aside, and how many have one; a failure is a miss."""
    asked = [(r, reference) for r in records if (reference := references[r.index]) is not None]
    if not asked:
        return None, None
    return sum(r.text is not None and r.text.strip() == reference.strip() for r, reference in asked) / len(asked), len(asked)
