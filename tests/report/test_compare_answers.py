"""`ncdemo bench compare` on answers: two fast engines that don't say the same, or not as well, are not compared; objectives and searches."""

import json
from pathlib import Path

import pytest

from ncdemo.report.answers import Agreement, agreement, quality, unlike
from ncdemo.report.compare import Difference, Missing, Refused, Side, compare, read_side, table
from ncdemo.report.pairs import compare as pairs
from ncdemo.spec.agreement import AGREEMENT_TOKENS, same_start
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import BenchResult, Cell, Gates, RequestRecord, SearchResult
from ncdemo.spec.shares import apart

GATES = Gates(
    prompt_hash="h", asked_tokens="64 exactly", temperature=0.0, precision="bf16", max_model_len=2048, memory_fraction=0.4,
    warmup_requests=2, prefix_cache="off", prefix_reuse=False, mode="server", tensor_parallel=1, max_concurrency=8,
    slo_ttft_s=2.0, slo_tpot_s=0.1,
)  # fmt: skip
IDS = list(range(64))


def cells(engine: str = "e", n: int = 6, **more) -> tuple[Cell, ...]:
    fields = {"setting": "concurrency 8", "concurrency": 8, "output_tokens_per_s": 100.0, "goodput_rps": 5.0, "gates": GATES} | more
    return tuple(Cell(engine=engine, model="m", repeat=i, requests=10, failed=0, **fields) for i in range(n))


def record(repeat: int, index: int, ids: list[int] | None, text: str | None = None) -> RequestRecord:
    return RequestRecord(
        engine="e", model="m", setting="concurrency 8", concurrency=8, repeat=repeat, index=index, ok=True, prompt_tokens=4, output_tokens=64,
        scheduled_s=0.0, sent_s=0.0, chunk_s=[1.0], chunk_tokens=[64], token_ids=ids, text=text,
    )  # fmt: skip


@pytest.fixture
def make(tmp_path: Path):
    """Write a run of one engine and return it as a side."""

    def write(name: str, requests: list[RequestRecord], driver: str = "550", version: str = "vllm 1", **more) -> Side:
        folder = tmp_path / name
        folder.mkdir()
        bench = BenchResult(cells=list(cells(**more)), prompt_tokens=1, prompt_hash="h", engine_versions={"e": version}, load_time_s={})
        run = RunRecord(kind="bench", run_id=name, name=name, status="finished", spec_hash="s", started_at="2026-11-26", bench=bench)
        (folder / "result.json").write_text(run.model_dump_json())
        (folder / "requests.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in requests))
        about = {"gpu_driver": driver, "gpus": [{"name": "H100"}], "cpu": {"model": "c"}}
        (folder / "environment.json").write_text(json.dumps(about))
        return read_side(folder, None)

    return write


def agreed(found: list) -> Agreement:
    return next(one for one in found if isinstance(one, Agreement))


def test_only_the_first_tokens_are_judged() -> None:
    assert same_start([1, 2, 3, 4], [1, 2, 9, 4]) == 0.5
    late = [*IDS[:AGREEMENT_TOKENS], 999, *IDS[AGREEMENT_TOKENS + 1 :]]
    assert same_start(IDS, late) == 1.0, "one rounding after the 32nd token doesn't cost the rest of the answer"
    assert same_start(IDS, [999, *IDS[1:]]) == 0.0
    assert same_start(IDS, IDS[:16]) == 0.5
    assert (same_start([], []), same_start([1], [])) == (1.0, 0.0)


def test_two_runs_that_answer_otherwise_are_refused(make) -> None:
    """Each is the first engine of its run, so by its own record both agree with the reference."""
    a = make("a", [record(r, i, IDS) for r in range(6) for i in range(2)])
    b = make("b", [record(r, i, IDS if i else [7] * 64) for r in range(6) for i in range(2)])
    found = compare(a, b)
    assert agreed(found) == Agreement("m", "8", 0.5, 12, "tokens")
    assert found[-1] == Refused("m", "8", "only 50.0 % of the first 32 tokens agree, mean of 12 answers: at least 90 % must")
    assert not any(isinstance(one, Difference) for one in found)
    alike = compare(a, make("c", [record(r, i, IDS) for r in range(6) for i in range(2)]))
    assert agreed(alike).share == 1.0
    assert any(isinstance(one, Difference) for one in alike)


def test_without_token_ids_the_texts_are_compared(make) -> None:
    a = make("a", [record(r, 0, IDS, "name: job count: 4") for r in range(6)])
    b = make("b", [record(r, 0, None, "name: job count: 5") for r in range(6)])
    assert agreed(compare(a, b)) == Agreement("m", "8", 0.75, 6, "words")


@pytest.mark.parametrize(
    ("gates", "theirs", "why"),
    [
        (GATES, {}, "no requests of b are on record"),
        (GATES, {(0, 1): (IDS, None)}, "neither token ids nor texts of the same requests are on record"),
        (GATES, {(0, 0): (None, None)}, "neither token ids nor texts of the same requests are on record"),
        (GATES.model_copy(update={"temperature": 0.7}), {(0, 0): (IDS, None)}, "they were sampled, so they differ by design"),
    ],
)
def test_what_can_not_be_known_is_said(gates: Gates, theirs: dict, why: str) -> None:
    found = agreement("m", "8", cells(gates=gates), {(0, 0): (IDS, None)}, theirs)
    assert (found.share, found.shown) == (None, f"answers not compared: {why}")
    assert unlike(found, None) is None


def test_an_interval_of_two_shares_is_the_papers() -> None:
    """Newcombe 1998, table II, method 10: 9/10 - 3/10 is given as 0.1705 to 0.8090."""
    assert apart(0.9, 0.3, 10) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    assert apart(1.0, 1.0, 10)[0] < 0 < apart(1.0, 1.0, 10)[1]


def test_a_side_that_is_right_less_often_is_refused() -> None:
    good, bad = cells(exact_match=0.9, exact_match_examples=64), cells(exact_match=0.4, exact_match_examples=64)
    found = compare(Side("r", "a", good), Side("q", "b", bad))
    assert found[-1].why == "exact_match 90.0 % and 40.0 % of 64 examples, a - b in [+34.4, +62.3] points: b is worse"
    assert isinstance(found[-1], Refused)
    # A file of four prompts, repeated to 64, is no more than eight examples.
    few = compare(Side("r", "a", good, distinct=4), Side("q", "b", bad, distinct=4))
    assert any(isinstance(one, Difference) for one in few)
    right = quality("m", "8", good, bad, 4)
    assert (right.worse, right.examples) == (None, 4)
    assert right.shown.endswith("no more than noise")
    assert quality("m", "8", good, cells(), None) is None


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("tensor_parallel", 2, "tensor_parallel differs: 1 and 2"),
        ("max_concurrency", 256, "max_concurrency differs: 8 and 256"),
        ("arrival_seed", 1, "arrival_seed differs: 0 and 1"),
    ],
)
def test_what_the_engine_was_given_must_be_equal(field: str, value: int, why: str) -> None:
    ours = GATES.model_copy(update={"arrival_seed": 0})
    other = cells(gates=ours.model_copy(update={field: value}))
    assert compare(Side("r", "a", cells(gates=ours)), Side("q", "b", other)) == [Refused("m", "8", why)]
    older = cells(gates=ours.model_copy(update={field: None}))
    assert any(isinstance(one, Difference) for one in compare(Side("r", "a", cells(gates=ours)), Side("q", "b", older)))


def test_other_objectives_cost_the_goodput_alone() -> None:
    other = cells(gates=GATES.model_copy(update={"slo_tpot_s": 0.03}))
    found = compare(Side("r", "a", cells()), Side("q", "b", other))
    assert [one.metric for one in found if isinstance(one, Difference)] == ["output_tokens_per_s"]
    assert Missing("m", "8", "goodput_rps", "not compared: slo_tpot_s differs: 0.1 and 0.03") in found


def test_machines_and_versions_that_differ_are_told(make) -> None:
    same = [record(r, 0, IDS) for r in range(6)]
    a, b = make("a", same), make("b", same, driver="570", version="vllm 2")
    lines = table(a, b, compare(a, b)).splitlines()
    assert lines[2:4] == ["GPU driver differs: 550 and 570", "engine version differs: vllm 1 and vllm 2"]
    assert "  100.0 % of the first 32 tokens agree, mean of 6 answers" in lines


def searched(run: str, good: float | None, above: float | None, tried: tuple[float, ...], **more) -> Side:
    search = SearchResult(engine="e", model="m", max_goodput_rate_rps=good, above_rps=above, attainment=0.99, runs=2, reason="r")
    found = [
        Cell(engine="e", model="m", setting=f"poisson {rate:g} req/s, searched", rate_rps=rate, searched=True, repeat=0, requests=10,
             failed=9 if good is None or rate > good else 0, gates=GATES)
        for rate in tried
    ]  # fmt: skip
    return Side(run, "e", tuple(found), (search.model_copy(update=more),))


def test_where_searches_ended_is_compared_by_their_brackets() -> None:
    a, b = searched("r", 8.0, 8.4, (1.0, 8.0)), searched("q", 4.0, 4.2, (1.0, 4.0))
    (found,) = [one for one in compare(a, b) if isinstance(one, Difference) and one.metric == "max_goodput_rate_rps"]
    assert (found.ratio, found.low, found.high) == (2.0, pytest.approx(8 / 4.2), pytest.approx(8.4 / 4))
    assert found.verdict == "not established: 1 of at least 6 repeats"


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        (searched("q", None, 0.5, (1.0, 0.5)), Missing("m", "search", "max_goodput_rate_rps", "b met the objectives at no rate")),
        (searched("q", 4.0, 4.2, (4.0,)),
         Refused("m", "search", "no rate was tried by both, so equal prompts aren't proven; search from one start_rps")),
        (searched("q", 4.0, 4.2, (1.0, 4.0), attainment=0.9), Refused("m", "search", "attainment differs: 0.99 and 0.9")),
    ],
)  # fmt: skip
def test_searches_that_can_not_be_compared(b: Side, expected: Missing | Refused) -> None:
    assert expected in compare(searched("r", 8.0, 8.4, (1.0, 8.0)), b)


def test_the_pages_pairs_are_refused_by_the_same_rule() -> None:
    slow = cells("b", gates=GATES.model_copy(update={"precision": "fp32"}))
    (pair,) = pairs([*cells("a"), *slow])
    assert pair.verdict == "not comparable: precision differs: fp32 and bf16"
    wrong = cells("b", exact_match=0.4, exact_match_examples=64)
    (pair,) = pairs([*cells("a", exact_match=0.9, exact_match_examples=64), *wrong])
    assert pair.verdict.endswith("b - a in [-62.3, -34.4] points: b is worse")
    (pair,) = pairs([*cells("a"), *cells("b")])
    assert pair.verdict == "no difference shown"
