"""Energy from samples, by hand."""

import json
from pathlib import Path

import pytest

from ncdemo.spec.energy import Meter


def test_power_is_integrated_over_the_window_alone() -> None:
    ramp = Meter([(0.0, 0.0, None), (2.0, 200.0, None), (4.0, 400.0, None)])
    assert ramp.joules(1.0, 3.0) == (pytest.approx(400.0), "power")  # 100 to 300 W in 2 s
    assert ramp.joules(0.5, 1.0) == (pytest.approx(37.5), "power")


@pytest.mark.parametrize(
    "readings",
    [
        [],
        [(0.0, 10.0, 1.0)],
        [(2.0, 10.0, 1.0), (4.0, 10.0, 2.0)],
        [(0.0, 10.0, None), (2.0, None, None), (4.0, 10.0, None)],
        [(0.0, 10.0, 1.0), (60.0, 10.0, 2.0)],
    ],
    ids=["none", "one", "begins late", "a GPU was silent", "a gap"],
)
def test_energy_that_is_not_known_is_none(readings: list) -> None:
    assert Meter(readings).joules(1.0, 3.0) is None


def test_the_counter_comes_before_sampled_power_and_bridges_a_silent_moment() -> None:
    """From 1 to 3 s: at 1 s 100 of the first gap's 250 J were taken, at 3 s 150 of the last one's 300; the power would say 18 J."""
    told = Meter([(0.0, 9.0, 1000.0), (2.0, None, None), (2.5, 9.0, 1250.0), (3.5, 9.0, 1550.0)])
    assert told.joules(1.0, 3.0) == (pytest.approx(150.0 + 150.0), "counter")


def test_a_counter_that_went_back_is_not_believed() -> None:
    assert Meter([(0.0, 10.0, 1000.0), (2.0, 10.0, 5.0), (4.0, 10.0, 25.0)]).joules(1.0, 3.0) == (pytest.approx(20.0), "power")


def test_all_gpus_are_added_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    lines = [
        {"time_s": 0.0, "gpus": [{"index": 0, "power_w": 100.0, "energy_j": 7.0}, {"index": 1, "power_w": 50.0, "energy_j": 1.0}]},
        {"time_s": 2.0, "gpus": [{"index": 0, "power_w": 100.0, "energy_j": 210.0}, {"index": 1, "error": "lost"}]},
        {"time_s": 2.1, "gpus": [{"index": 0}, {"index": 1}]},  # NVML was busy
        {"time_s": 3.0, "gpus": [{"index": 0, "power_w": 100.0, "energy_j": 307.0}, {"index": 1, "power_w": 50.0, "energy_j": 151.0}]},
    ]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time_s": 4')
    assert Meter.read(file).joules(1.0, 2.0) == (pytest.approx(150.0), "counter")
    assert Meter.read(tmp_path / "none.jsonl").joules(1.0, 2.0) is None
