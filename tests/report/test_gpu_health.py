"""What a report says of GPUs that were slowed down, reported errors or were too busy to answer."""

import json
import re

import numpy as np
import pytest

from ncdemo.report import write_report
from ncdemo.report.gpu_health import MOST_XIDS, notes, slowed_share
from ncdemo.report.lines import records
from ncdemo.report.read import read_run
from ncdemo.report.sample_rows import row_lines
from ncdemo.report.samples import to_telemetry
from ncdemo.report.telemetry_plots import telemetry_plot

HEALTHY = {"index": 0, "power_w": 380.0, "throttle_reasons": ["power_cap"], "xids": [], "ecc_corrected": 7, "ecc_uncorrected": 0}


def telemetry(*gpus, **more):
    return to_telemetry([[{"time_s": float(i), "gpus": [dict(gpu)], **more} for i, gpu in enumerate(gpus)]])


def test_a_healthy_gpu_has_nothing_to_say():
    """Its memory errors are from before the run, and it runs at its power cap."""
    found = telemetry(HEALTHY, HEALTHY)
    assert notes(found) == []
    assert slowed_share(found.health[0]) == 0
    assert slowed_share(telemetry({"index": 0, "power_w": 9.0}).health[0]) is None


def test_faults_are_counted_and_xids_named():
    hot = HEALTHY | {"throttle_reasons": ["hw_slowdown", "sw_thermal", "hw_thermal"], "xids": [63], "ecc_corrected": 9}
    found = telemetry(
        HEALTHY, hot, HEALTHY | {"ecc_uncorrected": 1, "ecc_corrected": 10}, {"index": 0, "error": "GPU is lost", "xids": [79]}
    )
    said = notes(found)
    assert said == [
        "GPU 0 stopped answering at 3 s: GPU is lost.",
        "GPU 0 was slowed down by hardware in 33.3 % of 3 samples: it measured a slower GPU than its model.",
        "GPU 0 was slowed down by heat in 33.3 % of 3 samples: it measured a slower GPU than its model.",
        "GPU 0 reported XID 63 at 1 s, 79 at 3 s.",
        "GPU 0 counted 3 corrected memory errors during the run.",
        "GPU 0 counted 1 uncorrected memory error during the run.",
    ]
    many = telemetry(*[HEALTHY | {"xids": [13, 31]}] * MOST_XIDS)
    assert notes(many)[0].endswith(f"and {MOST_XIDS} more.")


def test_what_another_machine_counted_before_is_no_error_of_the_run():
    """A run that went on elsewhere: 9 corrected here, 5000 there before it came and 2 after."""
    counts = [(7, {"tick": 0}), (9, {"tick": 1}), (5000, {"tick": 0, "scheduling": "niceness 0"}), (5002, {"tick": 1}), (4, {"tick": 0})]
    lines = [{"time_s": float(i), "gpus": [HEALTHY | {"ecc_corrected": n}], **more} for i, (n, more) in enumerate(counts)]
    assert notes(to_telemetry([lines])) == ["GPU 0 counted 4 corrected memory errors during the run."]


def test_a_gpu_that_was_busy_with_the_sample_before_is_not_lost():
    busy = {"index": 0, "error": None, "power_w": None}
    found = telemetry(HEALTHY, busy, HEALTHY, busy)
    assert found.lost == []
    assert list(found.gpus[0]["time_s"]) == [0.0, 2.0]


@pytest.mark.parametrize(("ticks", "missed"), [([0, 1, 2], 0), ([0, 3, None], 2), ([5, 6, None, 0, 2], 1), ([None, None], 0)])
def test_ticks_without_a_sample_are_counted_in_every_attempt(ticks, missed):
    assert to_telemetry([[{"time_s": float(i), "tick": tick} for i, tick in enumerate(ticks)]]).missed == missed


def test_faults_of_other_nodes_are_told_by_node(train_run, tmp_path):
    run = train_run("tune", gpus=1)
    for name, gpu in (("tune-node1", HEALTHY | {"xids": [79]}), ("tune-node2", HEALTHY), ("tune-nodes", HEALTHY | {"xids": [13]})):
        run.with_name(name).mkdir()
        (run.with_name(name) / "samples.jsonl").write_text(json.dumps({"time_s": 4.0, "gpus": [gpu]}) + "\n")
    page = write_report([run], tmp_path / "page.html").read_text()
    assert "Node 1: GPU 0 reported XID 79 at 4 s." in page
    assert "Node 2" not in page
    assert "XID 13" not in page


def test_gpus_of_other_nodes_are_drawn_by_node(train_run, tmp_path):
    run = train_run("tune", gpus=1)
    alone = write_report([run], tmp_path / "alone.html").read_text()
    assert "GPU power (W)" in alone
    assert ", node" not in alone
    train_run("tune-node1", gpus=2)
    page = write_report([run], tmp_path / "both.html").read_text()
    (shown,) = re.findall(r'aria-label="Time line of tune: ([^"]*)"', page)[:1]
    panels = shown.split(", ")
    first = panels.index("GPU power (W)")
    assert panels[first : first + 4] == ["GPU power (W)", "node 0", "GPU power (W)", "node 1"]
    assert {"CPU busy", "Disk", "Network"} < set(panels), "one panel for both, a line each"
    assert re.search(r"\d+ samples of 2 nodes", page)


def test_an_xid_is_drawn_where_its_node_is(train_run):
    run = train_run("tune", gpus=1)
    other = train_run("tune-node1", gpus=1)
    lines = [json.loads(line) for line in (other / "samples.jsonl").read_text().splitlines()]
    lines[20]["gpus"][0]["xids"] = [79]
    (other / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot = telemetry_plot(read_run(run), {})
    assert "Dashed: an XID." in plot.caption
    for drawing in (plot.svg, plot.narrow):
        text = drawing[drawing.index("</title>") :]
        before, named, after = text.partition("XID 79")
        assert named
        assert "XID 79" not in after, "named in the first panel of its node alone"
        assert "GPU utilisation (%), node 0" in before
        assert "GPU memory (GiB), node 0" in after


def test_the_page_shows_them_and_only_them(train_run, tmp_path):
    run = train_run(gpus=2)
    calm = write_report([run], tmp_path / "calm.html").read_text()
    assert "slowed down" not in calm
    assert "XID" not in calm
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for i, sample in enumerate(samples):
        sample["tick"] = i + (i > 10)
        sample["gpus"][1] |= {"throttle_reasons": ["hw_thermal"] if i % 40 < 10 else [], "xids": [63] if i == 30 else []}
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    page = write_report([run], tmp_path / "hot.html").read_text()
    assert "GPU 1 reported XID 63 at 15 s." in page
    assert "GPU slowed down by heat or hardware" in page
    assert "Dashed: an XID." in page
    assert "GPU 1, by heat" in page
    assert ">XID 63</text>" in page
    assert "1 more lost" in page


def counted(*samples):
    """Return the telemetry of samples (attempt's tick, time, fields of GPU 0)."""
    return to_telemetry(
        [[{"time_s": at_s, "tick": tick, "gpus": [{"index": 0, "power_w": 9.0, **fields}]} for tick, at_s, fields in samples]]
    )


def test_memory_errors_of_another_machine_are_none_of_the_run():
    first = [(0, 0.0, {"ecc_uncorrected": 0}), (1, 1.0, {"ecc_uncorrected": 1})]
    second = [(0, 9.0, {}), (1, 10.0, {"ecc_uncorrected": 40}), (2, 11.0, {"ecc_uncorrected": 42}), (3, 12.0, {})]
    assert notes(counted(*first, *second)) == ["GPU 0 counted 3 uncorrected memory errors during the run."]


def test_nvlink_is_a_rate_within_an_attempt_and_pcie_is_as_read():
    first = [(i, float(i), {"nvlink_tx_bytes": i * 500, "pcie_rx_bytes_per_s": 7.0} if i % 2 else {}) for i in range(40)]
    second = [(i, 50.0 + i, {"nvlink_tx_bytes": 10**9 + i * 100}) for i in range(25)]
    links = counted(*first, *second).links[0]
    times, rates = links["nvlink_tx_bytes_per_s"]
    assert list(times) == [11.0, 21.0, 31.0, 50.0, 60.0, 70.0]
    assert list(np.nan_to_num(rates, nan=-1)) == [500, 500, 500, -1, 100, 100], "between machines there is no rate"
    assert set(links["pcie_rx_bytes_per_s"][1][:20]) == {7.0}
    assert not len(links["nvlink_rx_bytes_per_s"][1])
    times, rates = counted(*[(i, i / 2, {"nvlink_tx_bytes": i * 300}) for i in range(9)]).links[0]["nvlink_tx_bytes_per_s"]
    assert (list(times), list(rates)) == ([4.0], [600.0]), "a run shorter than that has one"


def test_while_a_gpu_is_lost_its_links_have_no_rate():
    rows = [{"error": "GPU is lost"} if 20 <= i < 31 else {"nvlink_tx_bytes": i * 500, "pcie_rx_bytes_per_s": 7.0} for i in range(60)]
    links = counted(*[(i, float(i), row) for i, row in enumerate(rows)]).links[0]
    times, rates = links["pcie_rx_bytes_per_s"]
    assert list(times[np.isnan(rates)]) == list(range(20, 31))
    times, rates = links["nvlink_tx_bytes_per_s"]
    assert (list(times), list(np.nan_to_num(rates, nan=-1))) == ([10.0, 31.0, 40.0, 50.0], [500, -1, 500, 500])


def test_memory_of_processes_is_drawn_apart(train_run, tmp_path):
    run = train_run(gpus=1)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for i, sample in enumerate(samples):
        taken = [{"pid": 41, "memory_bytes": 5 << 30}, {"pid": 42, "memory_bytes": None if i < 9 else 1 << 30}]
        sample["gpus"][0] |= {"processes": taken} if i % 2 else {}
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    found = read_run(run).telemetry.processes
    assert {key: (times[0], set(taken)) for key, (times, taken) in found.items()} == {(0, 41): (0.5, {5 << 30}), (0, 42): (4.5, {1 << 30})}
    page = write_report([run], tmp_path / "r.html").read_text()
    assert "GPU memory by process (GiB)" in page
    assert "GPU: " not in page, "no link was measured"


@pytest.mark.parametrize("strange", ["NaN", '"much"', "[1]", "true", "null", "1e999"])
def test_a_value_that_is_no_number_leaves_the_others(tmp_path, strange):
    path = tmp_path / "samples.jsonl"
    gpu = '{"index": 0, "power_w": %s, "utilization_pct": 5, "throttle_reasons": ["hw_thermal", 3], "xids": [63, "x"], "processes": [7]}'
    lines = [f'{{"time_s": {i}, "tick": {i}, "cpu_pct": 1, "gpus": [{gpu % (strange if i == 1 else 9)}, 8]}}\n' for i in range(3)]
    path.write_text("".join(lines))
    problems = []
    found = to_telemetry(records(path, problems, row_lines))
    assert problems == []
    assert (list(found.host["cpu_pct"]), found.missed) == ([1, 1, 1], 0)
    assert list(found.gpus[0]["utilization_pct"]) == [5, 5, 5]
    assert np.isnan(found.gpus[0]["power_w"]).tolist() == [False, True, False]
    assert (found.health[0].xids, found.health[0].slowed) == ([(0, 63), (1, 63), (2, 63)], {"heat": 3})


def test_typed_rows_come_to_what_dicts_do(train_run):
    path = train_run(gpus=2, lost=1) / "samples.jsonl"
    typed, plain = (to_telemetry(records(path, [], how)) for how in (row_lines, None))
    assert typed.lost == plain.lost
    assert typed.health == plain.health
    for name, column in (typed.gpus[1] | typed.host).items():
        assert np.array_equal(column, (plain.gpus[1] | plain.host)[name], equal_nan=True), name
