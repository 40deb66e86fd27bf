"""Attempts at a run, told apart by their samples: by the energy, the report and the count of errors alike."""

import json

import numpy as np
import pytest

from ncdemo.report.samples import Ticks
from ncdemo.spec.attempts import Attempts
from ncdemo.spec.gpu_errors import GpuErrors

NAN = float("nan")
CASES = {
    "one": ([(0, "nice"), (1, None), (3, None), (None, None)], [0, 0, 0, 0]),
    "two": ([(0, "nice"), (1, None), (None, None), (0, "nice"), (1, None)], [0, 0, 0, 1, 1]),
    "their first samples alone, or lost": ([(0, "nice"), (0, "nice"), (2, None), (1, None)], [0, 1, 1, 2]),
}
OLDER = ([(None, None), (None, None), (0, "nice")], [0, 0, 1])
NOT_TICK_0 = ([(0, "nice"), (1, "nice"), (2, None)], [0, 1, 1])


@pytest.mark.parametrize(("samples", "attempts"), [*CASES.values(), OLDER, NOT_TICK_0], ids=[*CASES, "an older version's", "tick 0 lost"])
def test_attempts_are_told_apart_by_their_samplers(samples: list, attempts: list[int]) -> None:
    number = Attempts()
    assert [number.of(tick, scheduling) for tick, scheduling in samples] == attempts


@pytest.mark.parametrize("together", [1, 2, 5])
@pytest.mark.parametrize(("samples", "attempts"), CASES.values(), ids=CASES)
def test_the_report_tells_the_same_whatever_comes_in_one_batch(samples: list, attempts: list[int], together: int) -> None:
    known = np.array([NAN if tick is None else tick for tick, _ in samples])
    ticks = Ticks()
    found = [ticks.attempts(known[at : at + together]) for at in range(0, len(known), together)]
    assert np.concatenate(found).tolist() == attempts


@pytest.mark.parametrize(("samples", "attempts"), [*CASES.values(), OLDER, NOT_TICK_0], ids=[*CASES, "an older version's", "tick 0 lost"])
def test_errors_of_the_newest_attempt_are_the_same(samples: list, attempts: list[int]) -> None:
    errors, newest = GpuErrors(), []
    for tick, scheduling in samples:
        line = {"tick": tick, "scheduling": scheduling, "gpus": [{"index": 0, "xids": [31], "ecc_uncorrected": None}]}
        assert errors.tells(json.dumps(line).encode())
        errors.take(line)
        newest.append(errors.xids[0, 31])
    assert newest == [attempts[: i + 1].count(attempts[i]) for i in range(len(attempts))]
