"""When requests are due: the statistics of what is drawn, and the mistakes that are refused."""

import statistics
from itertools import pairwise

import pytest

from ncdemo.spec.base import SpecError
from workloads.inference.load.schedule import Open, closed, constant, gamma, poisson, replay


def _gaps(schedule: Open) -> list[float]:
    return [b - a for a, b in pairwise(schedule.offsets_s)]


def test_constant_gaps_are_all_alike() -> None:
    assert constant(4, 5).offsets_s == (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(("burstiness", "cv"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5)])
def test_gamma_gaps_have_their_mean_and_variation(burstiness: float, cv: float) -> None:
    gaps = _gaps(gamma(50, burstiness, 20001, seed=1))
    mean = statistics.fmean(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) / mean == pytest.approx(cv, rel=0.05)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
@pytest.mark.parametrize(("count", "seed"), [(2, 0), (64, 0), (64, 2), (268, 0)])
def test_few_arrivals_too_come_at_the_rate_that_was_asked_for(burstiness: float, count: int, seed: int) -> None:
    assert gamma(8, burstiness, count, seed).offsets_s[-1] == pytest.approx((count - 1) / 8)


def test_poisson_arrivals_have_no_memory() -> None:
    """Counts in equal windows have their mean as variance, and a gap says nothing about the next."""
    schedule = poisson(100, 20000, seed=2)
    counts = [0] * int(schedule.offsets_s[-1])
    for t in schedule.offsets_s:
        if t < len(counts):
            counts[int(t)] += 1
    assert statistics.variance(counts) / statistics.fmean(counts) == pytest.approx(1, rel=0.3)
    gaps = _gaps(schedule)
    assert abs(statistics.correlation(gaps[:-1], gaps[1:])) < 0.03


def test_a_seed_is_a_schedule() -> None:
    assert poisson(5, 50, 7) == poisson(5, 50, 7) != poisson(5, 50, 8)
    assert poisson(5, 50, 7).offsets_s[0] == 0


def test_replay_keeps_a_traces_gaps_and_can_hurry() -> None:
    assert replay([10.0, 10.5, 13.0]).offsets_s == (0.0, 0.5, 3.0)
    assert replay([10.0, 10.5, 13.0], speed=2).offsets_s == (0.0, 0.25, 1.5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: closed(0), "at least 1"),
        (lambda: constant(0, 3), "must be above 0"),
        (lambda: poisson(float("inf"), 3, 1), "closed loop"),
        (lambda: gamma(1, 0, 3, 1), "burstiness = 0"),
        (lambda: replay([1.0], speed=0), "speed = 0"),
        (lambda: Open((1.0, 0.5)), "must ascend"),
        (lambda: Open((-1.0, 0.5)), "before the start"),
    ],
)
def test_refuses_what_is_no_schedule(make, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        make()
