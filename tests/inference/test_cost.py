"""Energy and money of a cell, by hand."""

import json
import threading
import time
from pathlib import Path

import pytest

from ncdemo.spec.common import Prices
from ncdemo.spec.energy import Meter
from ncdemo.spec.result_bench import Cell
from workloads.inference.cost import priced, with_energy
from workloads.metrics.settle import settle

CELL = Cell(engine="a", model="m", concurrency=1, repeat=0, requests=1, failed=0, start_s=1.0, window_s=2.0, output_tokens=500)


def test_energy_of_the_window_and_per_token() -> None:
    measured = with_energy(CELL, Meter([(0.0, 0.0, None), (2.0, 200.0, None), (4.0, 400.0, None)]))
    assert (measured.energy_j, measured.energy_from, measured.energy_j_per_token) == (pytest.approx(400.0), "power", pytest.approx(0.8))
    # 1 s of 400 W and idle otherwise, with a sample each 2 s: whether it was in the first half or the second nobody can say.
    short = CELL.model_copy(update={"window_s": 1.0})
    assert with_energy(short, Meter([(0.0, 0.0, 0.0), (2.0, 400.0, 400.0), (4.0, 0.0, 400.0)])).energy_j is None
    unknown = with_energy(measured, Meter([]))
    assert (unknown.energy_j, unknown.energy_from, unknown.energy_j_per_token) == (None, None, None)


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
    assert (nowhere.usd_per_mtok, nowhere.usd_per_mtok_spot) == (None, None), "no price is guessed"
    assert priced(CELL, None) == CELL
