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


def of_gpu(time_s: float, watts: float, joules: float, **more: object) -> dict[str, object]:
    return {"time_s": time_s, "gpus": [{"index": 0, "power_w": watts, "energy_j": joules}], **more}


FIRST = [of_gpu(t / 2, 120.0, 1000.0 + 60.0 * t, tick=t, **{"scheduling": "niceness 0"} if t == 0 else {}) for t in range(5)]


@pytest.mark.parametrize("joules", [11_720.0, 335_000.0, 7.0], ids=["after a pause", "another machine", "another machine's young driver"])
@pytest.mark.parametrize("began", [{"tick": 0, "scheduling": "niceness 0"}, {"tick": 1}], ids=["whole", "without its first sample"])
@pytest.mark.parametrize("busy", [False, True], ids=["answers", "NVML busy at first"])
def test_no_energy_is_counted_over_the_pause_between_two_attempts(joules: float, began: dict, busy: bool, tmp_path: Path) -> None:
    """120 W throughout. The run's clock goes on half a second after the last sample of the attempt before; the counter elsewhere."""
    second = [of_gpu(2.5 + t / 2, 120.0, joules + 60.0 * t, tick=began["tick"] + t) for t in range(5)]
    second[0] |= began
    if busy:
        second[0]["gpus"] = [{"index": 0}]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in FIRST + second))
    meter = Meter.read(file)
    assert meter.joules(0.25, 1.75) == (pytest.approx(180.0), "counter")
    assert meter.joules(3.25, 4.25) == (pytest.approx(120.0), "counter")
    assert meter.joules(0.5, 3.5) is None, "over the pause"
    assert meter.joules(2.1, 2.4) is None, "between the two"
    assert meter.parted(0.5, 3.5)
    assert not meter.parted(0.25, 1.75)


def test_without_counters_the_power_of_two_attempts_is_not_joined() -> None:
    """The trapezoid between them would take the pause's end for a slope."""
    meter = Meter([(0.0, 100.0, None), (1.0, 100.0, None), (2.0, 700.0, None), (3.0, 700.0, None)], [0, 0, 1, 1])
    assert meter.joules(0.0, 3.0) is None
    assert meter.joules(1.2, 1.8) is None
    assert meter.joules(0.5, 1.0) == (pytest.approx(50.0), "power")


def test_a_driver_loaded_anew_costs_only_its_own_attempt_the_counter() -> None:
    meter = Meter([(0.0, 10.0, 900.0), (1.0, 10.0, 3.0), (2.0, 10.0, 13.0), (3.0, 10.0, 500.0), (4.0, 10.0, 510.0)], [0, 0, 0, 1, 1])
    assert meter.joules(0.5, 1.5) == (pytest.approx(10.0), "power")
    assert meter.joules(3.2, 3.7) == (pytest.approx(5.0), "counter")


@pytest.mark.parametrize(
    ("odd", "known"),
    [
        ({}, 100.0),
        ({"cpu_pct": "5"}, 100.0),
        ({"cpu_pct": "much"}, None),
        ({"unknown": 1}, None),
        ({"gpus": None}, None),
        ({"gpus": [{"index": 0, "power_w": "100"}]}, 100.0),
        ({"gpus": [{"index": 0, "power_w": 100, "processes": [{"pid": 1.5}]}]}, None),
        ({"gpus": [{"index": 0, "power_w": 100, "processes": [{"pid": 1}], "xids": [], "throttle_reasons": ["power_cap"]}]}, 100.0),
        ({"gpus": [{"index": 0}]}, None),
    ],
)
def test_a_sample_is_read_as_its_model_has_it(odd: dict, known: float | None, tmp_path: Path) -> None:
    """What is quick must not take what the model refuses, nor refuse what it takes."""
    lines = [{"time_s": at_s, "gpus": [{"index": 0, "power_w": 100.0}]} | (odd if at_s == 4.0 else {}) for at_s in (0.0, 4.0, 8.0)]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Meter.read(path).joules(3.0, 4.0) == (None if known is None else (known, "power"))


def test_a_gpu_whose_counter_began_anew_is_seen_in_a_sum_that_grows(tmp_path: Path) -> None:
    """Of two GPUs the second, with a young counter, is reset: together they still count up."""
    both = [(0.0, 5000.0, 300.0), (1.0, 5400.0, 400.0), (2.0, 5800.0, 20.0), (3.0, 6200.0, 120.0)]
    lines = [
        {"tick": i, "time_s": at, "gpus": [{"index": k, "power_w": 250.0, "energy_j": joules} for k, joules in enumerate(of)]}
        for i, (at, *of) in enumerate(both)
    ]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Meter.read(file).joules(0.5, 2.5) == (pytest.approx(1000.0), "power")


@pytest.mark.parametrize(("period_s", "known"), [(1.0, False), (8.0, True)])
def test_a_gap_is_what_is_longer_than_the_samplers_own_period(period_s: float, known: bool, tmp_path: Path) -> None:
    """Samples 8 s apart: asked for once a second they lack seven, asked for every 8 s none."""
    at = [0.0, 8.0, 16.004, 24.0]
    lines = [of_gpu(t, 100.0, 100.0 * t, tick=round(t / period_s)) for t in at]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Meter.read(file).joules(4.0, 20.0) == ((pytest.approx(1600.0), "counter") if known else None)
