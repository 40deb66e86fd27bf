"""Runs on several nodes in the report: each by itself while they are few, the range over them when they are many."""

import json
import re

import numpy as np
import pytest

from ncdemo.report import write_report
from ncdemo.report.bands import band
from ncdemo.report.machine_panels import FEW, machine_panels
from ncdemo.report.read import read_run


def rewritten(run, change):
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for i, sample in enumerate(samples):
        change(i, sample)
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return run


def idle(_i, sample):
    for gpu in sample["gpus"]:
        gpu["utilization_pct"] = 0.0


def hot(i, sample):
    sample["gpus"][1] |= {"throttle_reasons": ["hw_thermal"] if i > 50 else [], "xids": [79] if i == 50 else []}


@pytest.fixture
def nodes(train_run):
    """Make a run on so many nodes of two GPUs, of which those of the third idle, and one of the last is hot and has an XID."""

    def make(count):
        runs = [train_run("tune" if node == 0 else f"tune-node{node}", gpus=2, seed=node + 1) for node in range(count)]
        if count > 2:
            rewritten(runs[2], idle)
        rewritten(runs[-1], hot)
        return runs[0]

    return make


def panels(run):
    return {panel.name: panel for panel in machine_panels(read_run(run))}


@pytest.mark.parametrize("count", [2, FEW])
def test_each_of_a_few_nodes_has_a_line_of_its_machine_and_panels_of_its_gpus(nodes, count):
    shown = panels(nodes(count))
    for name in ("CPU busy, all cores (%)", "Memory, machine (GiB)", "Disk, write (MiB/s)", "Network, sent (KiB/s)"):
        assert [line.label for line in shown[name].lines] == [f"node {node}" for node in range(count)], name
    assert [f"GPU power (W), node {node}" in shown for node in range(count + 1)] == [True] * count + [False]
    assert [line.label for line in shown["GPU power (W), node 1"].lines] == ["0", "1"]
    assert len({line.colour for line in shown["CPU busy, all cores (%)"].lines}) == count


def test_of_many_nodes_the_range_is_drawn_and_who_was_slowed_down_named(nodes, tmp_path):
    run = nodes(8)
    shown = panels(run)
    assert not [name for name in shown if "node" in name]
    (busy,) = shown["GPU utilisation (%)"].lines
    assert np.nanmin(busy.low[-20:]) == 0, "the third's"
    assert (busy.low <= busy.y).all()
    assert (busy.y <= busy.high).all()
    assert busy.y[-5] == pytest.approx(90.5 * 7 / 8, rel=0.05)
    assert [line.label for line in shown["GPU slowed down by heat or hardware"].lines] == ["node 7 GPU 1"]
    page = write_report([run], tmp_path / "page.html").read_text()
    assert ">XID 79, node 7</text>" in page
    assert "GPU 1 of node 7, by heat" in page
    assert "Of 8 nodes, or all their GPUs: the mean" in page


def test_a_table_says_which_node_was_the_idle_one(nodes, tmp_path):
    page = write_report([nodes(3)], tmp_path / "page.html").read_text()
    rows = re.findall(r'<tr><th scope="row">(\d)</th>(.*?)</tr>', page[page.index("Each node over its own samples") :])
    idlest = [re.findall(r"<td[^>]*>([^<]*)</td>", cells)[8] for _, cells in rows]
    assert [node for node, _ in rows] == ["0", "1", "2"]
    assert idlest[2] == "0.0 %"
    assert "0.0 %" not in idlest[:2]


def test_what_is_wrong_with_a_nodes_file_names_the_node(nodes):
    run = nodes(2)
    with (run.with_name("tune-node1") / "samples.jsonl").open("a") as file:
        file.write('{"time_s": 4')
    assert [said for said in read_run(run).problems if said.startswith("Node 1: samples.jsonl: the last line")]


def test_nodes_that_are_absent_are_said_and_those_of_an_attempt_with_more_left_out(nodes):
    run = nodes(3)
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"nodes": 4}))
    assert read_run(run).problems == ["Node 3 has no samples here: put its folder, tune-node3, beside tune."]
    (run / "environment.json").write_text(json.dumps(environment | {"nodes": 2}))
    found = read_run(run)
    assert (list(found.nodes), found.problems) == ([1], [])


def test_a_range_compares_curves_not_their_moments():
    """One is read at even seconds, one at odd ones, one ends early, and one says nothing for a while."""
    even, odd = np.arange(0, 40, 2.0), np.arange(1, 41, 2.0)
    gap = np.where((even > 10) & (even < 20), np.nan, 8.0)
    x, low, mean, high = band([(even, np.full(20, 2.0)), (odd, np.full(20, 5.0)), (even[:10], np.full(10, 1.0)), (even, gap)])
    assert len(x) == 10
    assert list(low) == [1.0] * 5 + [2.0] * 5
    assert list(high) == [8.0] * 3 + [5.0] * 2 + [8.0] * 5
    assert mean[0] == 4.0
    assert mean[-1] == 5.0


def test_a_range_has_a_gap_where_nothing_was_read():
    time_s = np.concatenate([np.arange(10.0), np.arange(30.0, 40.0)])
    x, low, _, high = band([(time_s, time_s), (time_s, time_s + 1)])
    assert np.isnan(low[(x > 12) & (x < 28)]).all()
    assert np.isfinite(high[[0, -1]]).all()


def test_one_reading_is_a_range_too():
    x, low, mean, high = band([(np.array([3.0]), np.array([1.0])), (np.array([3.0]), np.array([2.0]))])
    assert (low[0], mean[0], high[0]) == (1.0, 1.5, 2.0)
    assert len(x) == 1
