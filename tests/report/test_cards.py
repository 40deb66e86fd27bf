"""The headline: of each engine the best load that is fair and met its objectives, and where a search ended."""

from pathlib import Path

from ncdemo.report.cards import Card, headline
from ncdemo.report.read import Run
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import BenchResult, Cell, Distribution, SearchResult


def spread(p50: float) -> Distribution:
    return Distribution(count=20, mean=p50, p50=p50, min=p50, max=p50)


def cell(load: str, speed: float, attained: float = 1.0, engine: str = "a", **more: object) -> Cell:
    fields = {
        "engine": engine, "model": "m", "setting": load, "repeat": 0, "requests": 20, "failed": 0, "output_tokens_per_s": speed,
        "slo_attainment": attained, "ttft_s": spread(0.01), "ttft_from_schedule_s": spread(3.0), "tpot_s": spread(0.02),
    }  # fmt: skip
    return Cell.model_validate(fields | more)


def cards(cells: list[Cell], searches: list[SearchResult] = []) -> dict[str, Card]:  # noqa: B006 - it is not changed
    bench = BenchResult(cells=cells, searches=searches, prompt_tokens=1, prompt_hash="h", engine_versions={}, load_time_s={})
    record = RunRecord(kind="bench", run_id="r", name="r", status="finished", spec_hash="0", started_at="2026-11-01T00:00:00Z", bench=bench)
    run = Run(folder=Path("r").name, kind="bench", record=record, measured=cells, label="r")
    return {card.title: card for card in headline([run], {"a": 0, "b": 1})}


def test_a_load_that_was_too_much_is_not_the_headline() -> None:
    found = cards([cell("poisson 4 req/s", 40.0), cell("poisson 64 req/s", 90.0, attained=0.078)])
    (row,) = found["Output"].rows
    assert (row.value, row.detail, row.flagged) == ("40", "at poisson 4 req/s, 1 repeat", False)
    (row,) = cards([cell("poisson 64 req/s", 90.0, attained=0.078)])["Output"].rows
    assert (row.value, row.detail) == ("90", "at poisson 64 req/s, 1 repeat, 7.8 % met the objectives"), "there is no other"


def test_a_burst_that_piles_up_is_not_the_headline() -> None:
    burst = cell("poisson 400 req/s", 90.0, lag=0.9, lag_noise=0.5)
    assert cards([cell("poisson 4 req/s", 40.0, lag=0.1, lag_noise=0.2), burst])["Output"].rows[0].value == "40"
    assert cards([burst])["Output"].rows[0].detail == "at poisson 400 req/s, 1 repeat, requests piled up"


def test_what_fails_a_gate_is_the_headline_only_where_nothing_else_is() -> None:
    (row,) = cards([cell("concurrency 1", 10.0, concurrency=1), cell("concurrency 8", 90.0, concurrency=8, failed=3)])["Output"].rows
    assert (row.value, row.flagged) == ("10", False)
    (row,) = cards([cell("concurrency 8", 90.0, concurrency=8, failed=3)])["Output"].rows
    assert (row.value, row.flagged) == ("90", True)


def test_a_load_of_which_a_repeat_died_is_not_fair() -> None:
    dead = cell("concurrency 8", 1.0, concurrency=8, repeat=1, error="exit 9").model_copy(update={"output_tokens_per_s": None})
    (row,) = cards([cell("concurrency 1", 10.0, concurrency=1), cell("concurrency 8", 90.0, concurrency=8), dead])["Output"].rows
    assert (row.value, row.flagged) == ("10", False)


def test_an_open_loops_first_token_counts_from_when_it_was_due() -> None:
    assert [(r.value, r.detail) for r in cards([cell("poisson 4 req/s", 1.0)])["TTFT"].rows] == [
        ("3,000 ms", "at poisson 4 req/s, since due")
    ]
    assert [r.value for r in cards([cell("concurrency 4", 1.0, concurrency=4)])["TTFT"].rows] == ["10 ms"]


def test_other_lengths_are_other_rows() -> None:
    cells = [cell(f"concurrency 4, {n}", speed, concurrency=4, lengths=n) for n, speed in (("8 to 8 tokens", 9.0), ("64 to 8 tokens", 5.0))]
    assert [(r.label, r.value) for r in cards(cells)["Output"].rows] == [("a · 8 to 8 tokens", "9"), ("a · 64 to 8 tokens", "5")]


def test_a_search_says_its_answer() -> None:
    searched = [cell(f"poisson {rate:g} req/s, searched", 1.0, rate_rps=rate, searched=True, failed=n) for rate, n in ((2.0, 0), (4.0, 1))]
    ends = [SearchResult(engine="a", model="m", max_goodput_rate_rps=2.0, above_rps=4.0, runs=2, reason="bracketed"),
            SearchResult(engine="b", model="m", runs=1, reason="no rate met the objectives")]  # fmt: skip
    found = cards(searched, ends)["Highest rate"]
    assert [(r.label, r.value, r.detail, r.flagged) for r in found.rows] == [
        ("a", "2", "bracketed", False),
        ("b", "none", "no rate met the objectives", False),
    ]
