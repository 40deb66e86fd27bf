"""A run on two nodes of two GPUs each, as their samplers leave it: what the report, the screen and the exporter say of each node."""

import io
import re
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from ncdemo.cli.watch_screen import screen
from ncdemo.report import write_report
from ncdemo.report.watched import Watched
from ncdemo.spec import TrainSpec, dump_spec
from ncdemo.spec.follow import RunState
from ncdemo.spec.run_folder import node_folder
from workloads.metrics.exporters.page import OtherNode, groups
from workloads.metrics.sampler import Sampler
from workloads.run import open_run
from workloads.stop import StopRequest

GPU = "0 {gpu} utilization {busy}\n0 {gpu} power_mw {power}\n0 {gpu} memory_used {memory}\n0 {gpu} reasons {reasons}\n0 {gpu} energy_mj 5\n"
HOT = 0x40
"""nvmlClocksThrottleReasonHwThermalSlowdown."""


def trace(*busy: int, hot: int | None = None, xid: int | None = None) -> str:
    """Return that of a node's GPUs, one of which heat slows down, or has an XID after a second."""
    lines = f"0 - count {len(busy)}\n"
    for gpu, pct in enumerate(busy):
        lines += GPU.format(gpu=gpu, busy=pct, power=pct * 5000, memory=(gpu + 20) << 30, reasons=HOT if gpu == hot else 0)
    return lines + (f"1 {xid} xid 79\n" if xid is not None else "")


@pytest.fixture
def sampled(nvml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run whose two nodes were sampled for two seconds: GPU 1 of the second idles, its GPU 0 is hot and has an XID."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml))
    monkeypatch.setenv("NCDEMO_NODES", "2")
    folder = tmp_path / "runs" / "pair"
    spec = TrainSpec.model_validate({"telemetry": {"mlflow_uri": None, "sample_hz": 20}})
    folder.mkdir(parents=True)
    node_folder(folder, 1).mkdir()
    for each in (folder, node_folder(folder, 1)):
        (each / "spec.yaml").write_text(dump_spec(spec))
    with ExitStack() as both:
        for node, text in enumerate((trace(90, 80), trace(70, 0, hot=0, xid=0))):
            (tmp_path / f"{node}.trace").write_text(text)
            monkeypatch.setenv("FAKE_NVML_TRACE", str(tmp_path / f"{node}.trace"))
            if node == 0:
                run = both.enter_context(open_run(folder, spec, stop=StopRequest()))
            else:
                both.enter_context(Sampler(node_folder(folder, node) / "samples.jsonl", 20, run.zero_ns))
        time.sleep(2.2)
    return folder


def test_the_report_has_every_node_and_says_which(sampled, tmp_path):
    page = write_report([sampled], tmp_path / "page.html").read_text()
    assert "Node 1: GPU 0 was slowed down by heat" in page
    assert re.search(r"Node 1: GPU 0 reported XID 79 at \S+ s", page)
    assert "GPU 0 of node 1, by heat" in page
    assert "Node 0:" not in page
    panels = re.search(r'aria-label="Time line of [^:]*: ([^"]*)"', page)[1]
    assert [panels.count(f"GPU utilisation (%), node {node}") for node in (0, 1)] == [1, 1]
    drawn = page[page.index("CPU busy, all cores") :]
    assert "node 0" in drawn
    assert "node 1" in drawn


def test_the_screen_has_the_gpus_of_both(sampled):
    run = Watched(sampled)
    run.update()
    console = Console(width=100, file=io.StringIO())
    console.print(screen(run))
    shown = console.file.getvalue()
    assert re.search(r"\n +1 +0 +70 +20 +350 .*XID 79, slowed by heat", shown)
    assert re.search(r"\n +1 +1 +0 +21 ", shown)
    assert re.search(r"\nnode 1 +CPU ", shown)


def test_each_node_exports_its_own_gpus_with_its_rank(sampled):
    states = [RunState(sampled), OtherNode(node_folder(sampled, 1), 1)]
    for state in states:
        state.update()
    first, second = (groups(state, "machine")[0] for state in states)
    assert second.key == first.key | {"node": "1"}
    assert 'ncdemo_gpu_utilization_ratio{gpu="0",node="0"} 0.9' in first.text()
    assert 'ncdemo_gpu_utilization_ratio{gpu="1",node="1"} 0.0' in second.text()
    assert 'ncdemo_gpu_throttled{gpu="0",node="1",reason="hw_thermal"} 1.0' in second.text()
    assert 'ncdemo_gpu_xid_errors_total{gpu="0",node="1",xid="79"} 1.0' in second.text()
    assert "xid" not in first.text()
    assert "ncdemo_run_status" not in second.text(), "one run"
