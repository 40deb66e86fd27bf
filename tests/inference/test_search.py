"""Searching the highest rate that meets the objectives: against known capacities, simulated and served, and as told by hand."""

import json
from collections import deque
from statistics import NormalDist

import pytest
from pydantic import ValidationError

from ncdemo.spec import BenchSpec
from ncdemo.spec.bench import Prompts, Slo
from ncdemo.spec.result_bench import Cell, SearchResult
from ncdemo.spec.sweep import PlannedCell, requests, searches
from ncdemo.spec.traffic import Load, Search
from workloads.inference.asked import Asked
from workloads.inference.frameworks.base import Answer
from workloads.inference.metrics import cell, request_record, wilson_low
from workloads.inference.search import Hunt, Verdict, judge
from workloads.inference.served import when

GOOD, BAD = Verdict(True), Verdict(False, "70.0 % of the requests met the objectives")
TOKENS = 64


def hunted(search: Search, capacity_rps: float) -> tuple[Hunt, list[float]]:
    """Search a server of which a known capacity meets the objectives."""
    hunt, tried = Hunt(search), []
    while (rate := hunt.next_rate()) is not None:
        tried.append(rate)
        hunt.tell(rate, GOOD if rate <= capacity_rps else BAD)
    return hunt, tried


def served(capacity_rps: float, batch: int, rate_rps: float, count: int) -> Cell:
    """Return a cell of a simulated engine: its requests share capacity_rps x TOKENS tokens/s, at most `batch` at once, the others wait."""
    plan = next(iter(searches(BenchSpec.model_validate_json(SPEC)))).at(Load(kind="poisson", rate_rps=rate_rps, search=True))
    offsets = deque(enumerate(when(Asked([None] * count, [None] * count, [TOKENS] * count), plan.load, 0).offsets_s))
    now, given = 0.0, 0.0  # tokens that each active request was given since the start
    waiting: deque[tuple[int, float]] = deque()
    active: deque[tuple[int, float, float]] = deque()  # index, sent, given at its beginning; all want as much, so the first ends first
    firsts: deque[tuple[int, float]] = deque()
    first_s: dict[int, float] = {}
    records = []
    while offsets or active:
        pace = capacity_rps * TOKENS / len(active) if active else 0.0
        ends = now + (active[0][2] + TOKENS - given) / pace if active else float("inf")
        tells = now + (firsts[0][1] + 1 - given) / pace if firsts else float("inf")
        comes = offsets[0][1] if offsets else float("inf")
        then = min(ends, tells, comes)
        given, now = given + (then - now) * pace, then
        if then == comes:
            waiting.append(offsets.popleft())
        elif then == tells:
            first_s[firsts.popleft()[0]] = now
        else:
            index, sent, _ = active.popleft()
            stamps = [round(at * 1e9) for at in (sent, first_s[index], now)]
            answer = Answer(index, stamps[0], stamps[0], stamps[1:], [1, TOKENS - 1])
            records.append(request_record(answer, plan, prompt_tokens=1, zero_ns=0, text=None))
        while waiting and len(active) < batch:
            index, sent = waiting.popleft()
            active.append((index, sent, given))
            firsts.append((index, given))
    return cell(records, plan, Slo(), expected_tokens=None, agreement=None)


SPEC = json.dumps({"mode": "server", "engines": ["echo"], "search": {}, "prompts": {"count": 268}})


def simulated(search: Search, capacity_rps: float, batch: int, count: int = 268) -> SearchResult:
    """Search a simulated engine."""
    spec = BenchSpec.model_validate_json(SPEC).model_copy(update={"search": search, "prompts": Prompts(count=count)})
    hunt, (first,) = Hunt(search), searches(spec)
    while (rate := hunt.next_rate()) is not None:
        n = requests(spec, first.at(first.load.model_copy(update={"rate_rps": rate})))
        hunt.tell(rate, judge(served(capacity_rps, batch, rate, n), search))
    return hunt.result(first)


@pytest.mark.parametrize(
    ("capacity", "batch", "changes"),
    [
        (78.0, 256, {}),
        (78.0, 10**6, {}),
        (78.0, 10**6, {"start_rps": 300.0}),
        (78.0, 256, {"min_duration_s": 0.1}),  # 268 requests at each rate: nothing but what piles up tells
        (20.0, 256, {}),
    ],
)
def test_a_simulated_engine_is_told_its_own_capacity(capacity: float, batch: int, changes: dict) -> None:
    """By the objectives alone the second and third are told 430 req/s: of 268 requests all but a few are answered as one batch."""
    search = Search(**({"start_rps": 8.0, "tolerance": 0.05, "max_runs": 20} | changes))
    found = simulated(search, capacity, batch)
    assert found.max_goodput_rate_rps == pytest.approx(capacity, rel=0.07), found.reason
    assert found.above_rps <= found.max_goodput_rate_rps * 1.05


def measured(**changes) -> Cell:
    fields = {"engine": "e", "model": "m", "repeat": 0, "requests": 601, "failed": 0, "rate_rps": 10.0, "slo_attainment": 1.0}
    return Cell(**(fields | {"sends_s": 60.0, "lag": 0.0, "lag_noise": 0.01, "least_e2e_s": 2.0} | changes))


@pytest.mark.parametrize(
    ("changes", "met", "why"),
    [
        ({}, True, ""),
        ({"slo_attainment": 0.9}, False, "90.0 % of the requests met the objectives"),
        ({"lag": 0.125}, False, "requests piled up: 12.5 % of those sent"),
        ({"lag": 0.125, "lag_noise": 0.2}, True, ""),
        ({"lag": -0.5}, True, ""),
        ({"least_e2e_s": 30.0}, None, "60 s of sends are too short for answers of 30 s; set search.min_duration_s to 90"),
        ({"sends_s": 75.0}, None, "the load generator sent but 8 req/s; give it more cores"),
        ({"slo_attainment": None, "error": "out of memory"}, False, "out of memory"),
        ({"sends_s": None}, False, "its cell was not measured"),
    ],
)
def test_what_a_cell_shows(changes: dict, met: bool | None, why: str) -> None:
    assert judge(measured(**changes), Search()) == Verdict(met, why)


def test_a_cell_that_shows_nothing_ends_the_search() -> None:
    (first,) = searches(BenchSpec.model_validate_json(SPEC))
    hunt = Hunt(Search())
    hunt.tell(1.0, GOOD)
    hunt.tell(2.0, judge(measured(least_e2e_s=30.0), Search()))
    found = hunt.result(first)
    assert (hunt.next_rate(), found.max_goodput_rate_rps, found.above_rps) == (None, 1.0, None)
    assert found.reason == "at 2 req/s 60 s of sends are too short for answers of 30 s; set search.min_duration_s to 90"


def test_a_rate_is_sent_for_its_time_and_why_the_next_failed_is_told() -> None:
    spec = BenchSpec.model_validate_json(SPEC)
    (first,) = searches(spec)
    counts = [requests(spec, first.at(Load(kind="poisson", rate_rps=rate, search=True))) for rate in (1.0, 4.0, 4.5, 100.0)]
    assert counts == [268, 268, 270, 6000]
    assert requests(spec, PlannedCell(first.subject, Load(kind="poisson", rate_rps=100.0), None, 0)) == 268, "no cell of a search"
    hunt, _ = hunted(Search(tolerance=0.1, max_runs=20), 3.3)
    assert hunt.result(first).reason.endswith("at 3.363 req/s 70.0 % of the requests met the objectives")


@pytest.mark.parametrize("capacity", [0.11, 1.0, 3.3, 57.0])
def test_it_ends_within_the_tolerance_in_few_runs(capacity: float) -> None:
    hunt, tried = hunted(Search(tolerance=0.1, max_runs=20), capacity)
    assert hunt.bracketed
    assert hunt.best <= capacity <= hunt.best * 1.11
    assert len(tried) <= 13
    assert len(set(tried)) == len(tried), "no rate twice"


def test_what_it_says_when_nothing_passes_or_the_runs_are_spent() -> None:
    hunt, tried = hunted(Search(max_runs=4), 1e-9)
    assert (hunt.best, tried) == (None, [1.0, 0.5, 0.25, 0.125])
    hunt, tried = hunted(Search(max_runs=3), 1e9)
    assert (hunt.best, tried, hunt.bracketed) == (4.0, [1.0, 2.0, 4.0], False)


def test_a_cell_that_could_not_be_measured_did_not_pass() -> None:
    hunt = Hunt(Search())
    hunt.tell(1.0, BAD)
    assert (hunt.best, hunt.next_rate()) == (None, 0.5)


def test_told_what_is_known_it_goes_on_where_it_was() -> None:
    _, whole = hunted(Search(), 3.3)
    again = Hunt(Search())
    for rate in whole[:4]:
        assert again.next_rate() == rate
        again.tell(rate, GOOD if rate <= 3.3 else BAD)
    assert again.next_rate() == whole[4]


def test_the_least_requests_are_what_wilsons_bound_needs() -> None:
    search = Search(attainment=0.99, confidence=0.95)
    n = search.least_requests
    assert n == 268
    assert wilson_low(n, n) >= 0.99 > wilson_low(n - 2, n - 2)
    assert NormalDist().inv_cdf(0.95) == pytest.approx(1.6449, abs=1e-4)


def test_too_few_requests_are_refused_with_the_number() -> None:
    with pytest.raises(ValidationError, match=r"16 requests can't show 0\.99 with confidence 0\.95.*prompts\.count to at least 268"):
        BenchSpec.model_validate_json(json.dumps({"mode": "server", "search": {}}))
