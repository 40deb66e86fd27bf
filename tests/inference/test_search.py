"""Searching the highest rate that meets the objectives: against known capacities, and as cells of a real sweep."""

import json
from statistics import NormalDist

import pytest
from pydantic import ValidationError

from ncdemo.spec import BenchSpec
from ncdemo.spec.traffic import Search
from workloads.inference.metrics import wilson_low
from workloads.inference.search import Hunt


def hunted(search: Search, capacity_rps: float) -> tuple[Hunt, list[float]]:
    """Search a server of which a known capacity meets the objectives."""
    hunt, tried = Hunt(search), []
    while (rate := hunt.next_rate()) is not None:
        tried.append(rate)
        hunt.tell(rate, 0.995 if rate <= capacity_rps else 0.7)
    return hunt, tried


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
    hunt.tell(1.0, None)
    assert (hunt.best, hunt.next_rate()) == (None, 0.5)


def test_told_what_is_known_it_goes_on_where_it_was() -> None:
    _, whole = hunted(Search(), 3.3)
    again = Hunt(Search())
    for rate in whole[:4]:
        assert again.next_rate() == rate
        again.tell(rate, 0.995 if rate <= 3.3 else 0.7)
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
