"""Throughput against latency, and goodput against rate: who is on the frontier, and what is drawn of it."""

import re

import pytest

from ncdemo.report.frontier import Point, on_frontier, pareto, points
from ncdemo.report.frontier_plots import frontier_plots
from ncdemo.report.show import short
from ncdemo.spec.result_bench import Cell, Distribution, SearchResult


def cell(subject: str, rate: float, speed: float, e2e_s: float, *, repeat: int = 0, failed: int = 0, lengths: str | None = None) -> Cell:
    latency = Distribution(count=20, mean=e2e_s, p50=e2e_s, p90=None, p99=None, min=e2e_s, max=e2e_s)
    setting = ", ".join(filter(None, (f"poisson {rate:g} req/s", lengths)))
    return Cell(
        engine=subject, model="m", setting=setting, lengths=lengths, rate_rps=rate, repeat=repeat, requests=20, failed=failed,
        output_tokens_per_s=speed, goodput_rps=rate * 0.9, e2e_s=latency,
    )  # fmt: skip


def point(latency: float, speed: float, subject: str = "a", *, flagged: bool = False) -> Point:
    return Point(subject, "1", latency, speed, flagged)


def test_the_frontier_is_what_no_other_point_beats_in_both() -> None:
    low, high, beaten, equal = point(1, 10), point(3, 30), point(2, 9), point(1, 10, "b")
    assert pareto([high, beaten, low]) == [low, high]
    assert set(pareto([low, equal])) == {low, equal}, "equal points don't beat each other"
    assert pareto([low, point(0.5, 50, flagged=True)]) == [low], "what fails a gate beats nobody"
    assert pareto([]) == []


def test_a_point_is_the_median_of_the_repeats() -> None:
    mine = [cell("a", 4, speed, latency, repeat=i) for i, (speed, latency) in enumerate([(10, 1), (30, 2), (20, 9)])]
    assert points(mine) == [Point("a", "poisson 4 req/s", 2, 20, False)]
    assert points([cell("a", 4, 1, 1, failed=2)])[0].flagged
    assert points([cell("a", 4, 1, 1).model_copy(update={"e2e_s": None})]) == [], "not measured, so not drawn"


def test_membership_is_per_model_and_lengths_and_unknown_where_a_median_is() -> None:
    good, worse = cell("a", 1, 10, 1), cell("b", 1, 9, 2)
    other, unbound = cell("b", 1, 9, 2, lengths="8 to 8 tokens"), cell("a", 2, 1, 1).model_copy(update={"e2e_s": None})
    assert on_frontier([good, worse, other, unbound]) == {
        ("m", None, "a", "poisson 1 req/s"): True,
        ("m", None, "b", "poisson 1 req/s"): False,
        ("m", "8 to 8 tokens", "b", "poisson 1 req/s, 8 to 8 tokens"): True,
    }


def test_figures_per_model_and_lengths_and_the_searched_rate() -> None:
    cells = [
        cell(e, rate, rate * 10, rate / 10, lengths=n) for e in "ab" for rate in (1, 2, 4) for n in ("8 to 8 tokens", "16 to 8 tokens")
    ]
    best = SearchResult(engine="a", model="m", lengths="8 to 8 tokens", max_goodput_rate_rps=2.5, above_rps=3, runs=4, reason="bracketed")
    plots = frontier_plots(cells, [best], {"a": 0, "b": 1})
    assert [p.caption.split(":")[0] for p in plots] == ["m, 16 to 8 tokens"] * 2 + ["m, 8 to 8 tokens"] * 2
    assert ["Vertical" in p.caption for p in plots] == [False, False, False, True]
    assert plots[0].svg.count(">1/s<") == plots[0].svg.count(">4/s<") == 2
    assert all("nan" not in p.svg for p in plots)


def test_one_load_has_no_frontier() -> None:
    assert frontier_plots([cell("a", 1, 10, 1), cell("b", 1, 10, 1)], [], {"a": 0, "b": 1}) == []


@pytest.mark.parametrize(
    ("load", "word"),
    [("8", "8"), ("concurrency 8, 20 to 5 tokens", "8"), ("poisson 2.5 req/s", "2.5/s"), ("gamma 4 req/s (burstiness 0.5)", "4/s"),
     ("trace x 2", "trace x 2"), ("poisson 4 req/s, searched, 1 to 1 tokens", "4/s"), ("other", "other")],
)  # fmt: skip
def test_a_load_in_a_word(load: str, word: str) -> None:
    assert short(load) == word
    assert re.fullmatch(r".{1,12}", short(load))
