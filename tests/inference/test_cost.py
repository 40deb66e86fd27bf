"""Energy and money of a cell, by hand."""

import json
from pathlib import Path

import pytest

from ncdemo.spec.common import Prices
from ncdemo.spec.result import Cell
from workloads.inference.cost import integral, priced, read_power, with_energy

CELL = Cell(engine="a", model="m", concurrency=1, repeat=0, requests=1, failed=0, start_s=1.0, window_s=2.0, output_tokens=500)


def test_power_is_integrated_over_the_window_alone() -> None:
    ramp = [(0.0, 0.0, None), (2.0, 200.0, None), (4.0, 400.0, None)]
    assert integral(ramp, 1.0, 3.0) == pytest.approx(400.0)  # 100 to 300 W in 2 s
    assert integral(ramp, 0.5, 1.0) == pytest.approx(37.5)
    measured = with_energy(CELL, ramp)
    assert (measured.energy_j, measured.energy_j_per_token) == (pytest.approx(400.0), pytest.approx(0.8))


@pytest.mark.parametrize(
    "power",
    [
        [],
        [(0.0, 10.0, 1.0)],
        [(2.0, 10.0, 1.0), (4.0, 10.0, 2.0)],
        [(0.0, 10.0, None), (2.0, None, None), (4.0, 10.0, None)],
        [(0.0, 10.0, 1.0), (60.0, 10.0, 2.0)],
    ],
    ids=["none", "one", "begins late", "a GPU was silent", "a gap"],
)
def test_energy_that_is_not_known_is_none(power: list) -> None:
    measured = with_energy(CELL, power)
    assert (measured.energy_j, measured.energy_from, measured.energy_j_per_token) == (None, None, None)


def test_the_counter_comes_before_sampled_power_and_bridges_a_silent_moment() -> None:
    """Between 1 and 3 s: half of the first gap's 100 J, and half of the last one's 300 J; the power would say otherwise."""
    told = [(0.0, 9.0, 1000.0), (2.0, None, None), (2.5, 9.0, 1250.0), (3.5, 9.0, 1550.0)]
    measured = with_energy(CELL, told)
    assert (measured.energy_j, measured.energy_from) == (pytest.approx(150.0 + 150.0), "counter")


def test_a_counter_that_went_back_is_not_believed() -> None:
    anew = [(0.0, 10.0, 1000.0), (2.0, 10.0, 5.0), (4.0, 10.0, 25.0)]
    measured = with_energy(CELL, anew)
    assert (measured.energy_j, measured.energy_from) == (pytest.approx(20.0), "power")


def test_power_of_all_gpus_is_read_and_a_torn_line_left_out(tmp_path: Path) -> None:
    lines = [
        {"time_s": 0.5, "gpus": [{"index": 0, "power_w": 100.0, "energy_j": 7.0}, {"index": 1, "power_w": 50.0, "energy_j": 1.0}]},
        {"time_s": 1.0, "gpus": [{"index": 0, "power_w": 100.0}, {"index": 1, "error": "lost"}]},
        {"time_s": 1.5, "gpus": []},
    ]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time_s": 2')
    assert read_power(file) == [(0.5, 150.0, 8.0), (1.0, None, None), (1.5, None, None)]
    assert read_power(tmp_path / "none.jsonl") == []


def test_a_node_by_the_hour_to_tokens_by_the_million() -> None:
    nc40 = priced(CELL, Prices(vm_size="Standard_NC40ads_H100_v5"))
    assert nc40.usd_per_mtok == pytest.approx(6.98 / 3600 * 2 / 500 * 1e6)
    assert nc40.usd_per_mtok_spot == (pytest.approx(1.5 / 3600 * 4000), pytest.approx(2.8 / 3600 * 4000))
    nowhere = priced(CELL, Prices(vm_size="Standard_NC40ads_H100_v5", region="nowhere"))
    assert nowhere.usd_per_mtok is None, "no price is guessed"
    assert priced(CELL, None) == CELL
