"""Energy and money of a cell, by hand."""

import json
import threading
import time
from pathlib import Path

import pytest

from ncdemo.spec.common import Prices
from ncdemo.spec.result import Cell
from workloads.inference.cost import Energy, integral, priced, read_energy, settle, with_energy

CELL = Cell(engine="a", model="m", concurrency=1, repeat=0, requests=1, failed=0, start_s=1.0, window_s=2.0, output_tokens=500)


def test_power_is_integrated_over_the_window_alone() -> None:
    ramp = [(0.0, 0.0), (2.0, 200.0), (4.0, 400.0)]
    assert integral(ramp, 1.0, 3.0) == pytest.approx(400.0)  # 100 to 300 W in 2 s
    assert integral(ramp, 0.5, 1.0) == pytest.approx(37.5)
    measured = with_energy(CELL, Energy(ramp, ()))
    assert (measured.energy_j, measured.energy_j_per_token) == (pytest.approx(400.0), pytest.approx(0.8))


@pytest.mark.parametrize(
    "power",
    [[], [(0.0, 10.0)], [(2.0, 10.0), (4.0, 10.0)], [(0.0, 10.0), (2.0, None), (4.0, 10.0)], [(0.0, 10.0), (60.0, 10.0)]],
    ids=["none", "one", "begins late", "a GPU was silent", "a gap"],
)
def test_energy_that_is_not_known_is_none(power: list) -> None:
    measured = with_energy(CELL, Energy(power, power))
    assert (measured.energy_j, measured.energy_j_per_token) == (None, None)


def test_power_of_all_gpus_is_read_and_a_torn_line_left_out(tmp_path: Path) -> None:
    lines = [
        {"time_s": 0.5, "gpus": [{"index": 0, "power_w": 100.0}, {"index": 1, "power_w": 50.0}]},
        {"time_s": 1.0, "gpus": [{"index": 0, "power_w": 100.0}, {"index": 1, "error": "lost"}]},
        {"time_s": 1.5, "gpus": []},
    ]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time_s": 2')
    assert read_energy(file) == Energy([(0.5, 150.0), (1.0, None), (1.5, None)], [(0.5, None), (1.0, None), (1.5, None)])
    assert read_energy(tmp_path / "none.jsonl") == Energy([], [])


def test_counters_of_the_gpus_come_before_their_power(tmp_path: Path) -> None:
    """Two GPUs of 100 W each by their counters, while sampled power misses half of it; one sample came while NVML was busy."""
    lines = [
        {"time_s": t, "gpus": [{"index": i, "power_w": 50.0, "energy_j": 1e6 * i + 100 * t} for i in (0, 1)]} for t in (0.5, 1.5, 2.5, 3.5)
    ]
    lines.insert(2, {"time_s": 1.6, "gpus": [{"index": 0}, {"index": 1}]})
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    energy = read_energy(file)
    assert with_energy(CELL, energy).energy_j == pytest.approx(2 * 100 * 2.0)
    for value in (None, 0.0):  # one GPU didn't tell, or its driver was loaded anew: power is what is left
        broken = [energy.counter_j[0], (1.5, value), *energy.counter_j[2:]]
        assert with_energy(CELL, Energy(energy.power_w, broken)).energy_j == pytest.approx(100 * 2.0)


def test_it_waits_for_the_samplers_last_line_and_not_for_ever(tmp_path: Path) -> None:
    file, gpus = tmp_path / "samples.jsonl", [{"index": 0}]
    file.write_text(json.dumps({"time_s": 1.0, "gpus": gpus}) + "\n")

    def append() -> None:
        with file.open("a") as lines:
            lines.write(json.dumps({"time_s": 2.0, "gpus": gpus}) + "\n")

    late = threading.Timer(0.3, append)
    late.start()
    began_s = time.monotonic()
    settle(file, 1.5, 1.0)
    assert 0.2 < time.monotonic() - began_s < 1.5
    began_s = time.monotonic()
    settle(file, 99.0, 0.1)
    assert 1 < time.monotonic() - began_s < 2
    file.write_text(json.dumps({"time_s": 1.0, "gpus": []}) + "\n")
    began_s = time.monotonic()
    settle(file, 99.0, 1.0)
    assert time.monotonic() - began_s < 0.5, "without GPUs there is nothing to wait for"


def test_a_node_by_the_hour_to_tokens_by_the_million() -> None:
    nc40 = priced(CELL, Prices(vm_size="Standard_NC40ads_H100_v5"))
    assert nc40.usd_per_mtok == pytest.approx(6.98 / 3600 * 2 / 500 * 1e6)
    assert nc40.usd_per_mtok_spot == (pytest.approx(1.5 / 3600 * 4000), pytest.approx(2.8 / 3600 * 4000))
    nowhere = priced(CELL, Prices(vm_size="Standard_NC40ads_H100_v5", region="nowhere"))
    assert nowhere.usd_per_mtok is None, "no price is guessed"
    assert priced(CELL, None) == CELL
