"""The small laws: how numbers are printed, that decimation keeps peaks, and when a difference is established."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ncdemo.report import show
from ncdemo.report.columns import decimate, ecdf, rows_of
from ncdemo.report.fairness import interval
from ncdemo.report.requests import to_latencies
from ncdemo.report.samples import to_telemetry


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not measured"),
        (float("nan"), "not measured"),
        (0, "0"),
        (0.0, "0"),
        (134515008, "134,515,008"),
        (2353.4, "2,353"),
        (100.74, "100.7"),
        (0.41, "0.41"),
        (2e-5, "2e-5"),
    ],
)
def test_number(value, shown):
    assert show.number(value) == shown


def test_units():
    assert show.ms(0.0123) == "12.3 ms"
    assert show.ms(None) == "not measured"
    assert show.percent(0.71875) == "71.9 %"
    assert [show.percent(share) for share in (0.0, 1.0)] == ["0.0 %", "100.0 %"]
    assert [show.percent(share) for share in (1999 / 2000, 99999 / 100000, 0.0003)] == ["99.95 %", "99.999 %", "0.03 %"], "one failed"
    assert show.size(3 * 1024**3) == "3 GiB"
    assert (show.byte_unit(1e9), show.link_unit(1e9)) == ((1024**2, "MiB"), (10**9, "GB")), (
        "memory in powers of two, links as they are sold"
    )
    assert [show.link_unit(rate)[1] for rate in (63e9, 5e6, 2e3, 12.0)] == ["GB", "MB", "kB", "B"]
    assert show.size(512) == "512 B"
    assert show.duration(12.34) == "12.3 s"
    assert show.duration(200) == "3 min 20 s"
    assert show.duration(7380) == "2 h 03 min"


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (2e-5, "2e-5"), (0.25, "0.25"), (1500, "1500"), (15000, "15k"), (3e6, "3M")])
def test_tick(value, shown):
    assert show.tick(value) == shown


def test_decimation_keeps_every_peak():
    y = np.sin(np.arange(100_000) / 50)
    y[12_345], y[77_777] = 9, -9
    x, kept = decimate(np.arange(100_000.0), y)
    assert len(kept) <= 600
    assert (kept.max(), kept.min()) == (9, -9)
    assert x[kept.argmax()] == 12_345
    assert (np.diff(x) > 0).all()


def test_decimation_keeps_gaps():
    y = np.ones(10_000)
    y[3_000:6_000] = np.nan
    x, kept = decimate(np.arange(10_000.0), y)
    assert np.isnan(kept[(x > 3_050) & (x < 5_950)]).all()
    assert not np.isnan(kept[x < 2_900]).any()


def test_ecdf_ends_at_one_and_keeps_both_ends():
    values = np.random.default_rng(1).random(5_000)
    x, y = ecdf(values)
    assert (x[0], x[-1], y[-1]) == (values.min(), values.max(), 1)
    assert len(x) <= 200
    assert np.interp(0.5, x, y) == pytest.approx(0.5, abs=0.03)


def test_rows_of_records_that_lack_or_twist_values():
    rows = rows_of([{"a": 1, "b": None}, {"a": "text"}, {"a": True, "b": float("inf")}], ("a", "b"))
    np.testing.assert_array_equal(rows, [[1, np.nan], [np.nan, np.nan], [1, np.nan]])


def test_interval_needs_six_and_covers():
    assert interval([1, 2, 3, 4, 5]) == (None, None)
    assert interval([1, 2, 3, 4, 5, 6]) == (1, 6)
    noise = np.random.default_rng(2)
    samples = np.sort(noise.lognormal(0, 0.3, size=(2_000, 9)), axis=1)
    covered = [low <= 1 <= high for low, high in map(interval, samples)]
    assert np.mean(covered) >= 0.95


def test_gpu_that_came_back():
    def sample(at, **gpu):
        return {"time_s": at, "gpus": [{"index": 0, **gpu}]}

    found = to_telemetry([[sample(0.0, power_w=90), sample(1.0, error="gone."), sample(2.0, power_w=95)]])
    assert [(loss.at_s, loss.why, loss.returned) for loss in found.lost] == [(1.0, "gone", True)]


def test_importing_the_report_loads_nothing_heavy():
    code = "import ncdemo.report, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout))
    assert not loaded & {"torch", "transformers", "pandas", "pulumi", "workloads", "matplotlib.pyplot", "ncdemo.cli"}


def test_the_first_token_of_an_open_loop_is_drawn_from_when_it_was_due():
    def request(**more):
        return {"engine": "a", "model": "m", "repeat": 0, "ok": True, "sent_s": 1.0, "chunk_s": [1.1], "chunk_tokens": [1], "e2e_s": 0.1,
                "ttft_s": 0.1, "ttft_from_schedule_s": 3.1, **more}  # fmt: skip

    open_loop, closed = request(setting="poisson 4 req/s", concurrency=None), request(setting="concurrency 4", concurrency=4)
    older = {key: value for key, value in open_loop.items() if key != "ttft_from_schedule_s"} | {"repeat": 1}
    found = to_latencies([[open_loop, closed, older]], [])
    assert [list(cell.ttft_s) for cell in found.values()] == [[3.1], [0.1], [0.1]]
