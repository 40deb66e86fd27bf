"""A run's cells as a table: what they were measured on is beside them, also of a run that was killed."""

import json
from pathlib import Path

import pytest

from ncdemo.report.compare import compare, read_side, table
from ncdemo.report.export import rows
from ncdemo.spec import SpecError
from ncdemo.spec.ledger import LedgerEntry, LedgerHead
from ncdemo.spec.result import RunRecord

GPU = {
    "gpus": [{"name": "NVIDIA H100 NVL"}, {"name": "NVIDIA H100 NVL"}],
    "gpu_driver": "570.86.15",
    "git_commit": "ab12",
    "git_dirty": True,
}


def kill(run: Path, cells: int) -> None:
    """Leave what a run leaves that was killed after so many cells: a record that says running, and the ledger, torn."""
    record = RunRecord.model_validate_json((run / "result.json").read_text())
    entries = [LedgerEntry(key=f"{i}", cell=c, requests_bytes=0, end_s=1, wall_s=1) for i, c in enumerate(record.bench.cells[:cells])]
    lines = [LedgerHead(spec_hash=record.spec_hash), *entries]
    (run / "cells.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines) + '{"key": "torn')
    (run / "result.json").write_text(record.model_copy(update={"status": "running", "bench": None}).model_dump_json())


def test_a_row_says_what_it_was_measured_on(bench_run) -> None:
    run = bench_run()
    (run / "environment.json").write_text(json.dumps(GPU))
    spec = (run / "spec.yaml").read_text()
    (run / "spec.yaml").write_text(spec.replace("server_args: {}", "server_args: {vllm: [--swap-space, 'a b']}"))
    found = rows(run)
    for row in found:
        assert (row["gpu"], row["gpus"], row["gpu_driver"], row["git_commit"], row["git_dirty"]) == (
            "NVIDIA H100 NVL", 2, "570.86.15", "ab12", True,
        )  # fmt: skip
        assert (row["slo.ttft_s"], row["slo.tpot_s"], row["tensor_parallel_size"]) == (2.0, 0.1, 1)
        assert (row["status"], row["flags"]) == ("finished", "")
    assert {(row["engine"], row["engine_version"]) for row in found} == {("transformers", "5.16.1"), ("vllm", "0.32.0")}
    assert {row["engine"]: row["server_args"] for row in found} == {"transformers": None, "vllm": "--swap-space 'a b'"}
    # vLLM is faster and quicker at either load; of its two, one has the latency and the other the throughput.
    assert {(row["engine"], row["on_pareto_frontier"]) for row in found} == {("transformers", False), ("vllm", True)}


def test_what_is_not_known_is_none(bench_run) -> None:
    run = bench_run()
    (run / "environment.json").unlink()
    (run / "spec.yaml").unlink()
    row = rows(run)[0]
    assert {row[name] for name in ("gpu", "gpus", "gpu_driver", "git_commit", "cpu", "slo.ttft_s", "tensor_parallel_size")} == {None}


def test_a_killed_run_has_the_cells_that_it_finished(bench_run) -> None:
    run = bench_run()
    kill(run, 5)
    command = run / "servers" / "vllm-x" / "command.json"
    command.parent.mkdir(parents=True)
    command.write_text(json.dumps({"engine": "vllm", "version": "vllm 0.32.0", "server_says": None}))
    found = rows(run)
    assert [(row["engine"], row["repeat"], row["status"]) for row in found][-2:] == [("vllm", 0, "running"), ("transformers", 1, "running")]
    assert len(found) == 5
    assert {row["engine_version"] for row in found} == {"vllm 0.32.0", None}
    a, b = read_side(run, "transformers"), read_side(run, "vllm")
    assert "a: its run is unfinished, it has 5 of 8 cells; these are compared." in table(a, b, compare(a, b))


def test_a_run_that_was_killed_before_its_first_cell_says_so(bench_run) -> None:
    run = bench_run()
    kill(run, 0)
    with pytest.raises(SpecError, match=r"holds no benchmark that measured anything; give a run of `ncdemo bench run`"):
        rows(run)
