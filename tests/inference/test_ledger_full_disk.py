"""The ledger on a disk that is full: a finished cell waits for room, and is never lost without a word."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.ledger import read_ledger
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell, RequestRecord
from tests.full_disk import Disk, small_disk
from tests.remedy import says_what_to_do
from workloads.inference.ledger import Ledger
from workloads.room import NoRoom

BENCH = """
import json, sys
from pathlib import Path
from tests.full_disk import Disk
from workloads import room, run
from workloads.inference import bench, ledger

disk, (full, freed) = Disk(Path(sys.argv.pop())), json.loads(sys.argv.pop())
room.WAIT_S = run.WAIT_S = 1.0
commit = ledger.Ledger.commit

def filled(self, key, *rest):
    if len(self.done) == full:
        disk.fill()
    return commit(self, key, *rest)

ledger.Ledger.commit = filled
run.main_guard(bench.main)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", mib=8) as disk:
        yield disk


def cell(n: int) -> Cell:
    return Cell(engine="e", model="m", repeat=n, requests=3, failed=0)


def requests(repeat: int, size: int = 100) -> list[RequestRecord]:
    return [
        RequestRecord(engine="e", model="m", repeat=repeat, index=n, ok=True, prompt_tokens=1, output_tokens=1, scheduled_s=0, sent_s=0,
                      chunk_s=[1.0], chunk_tokens=[1], text="x" * size)
        for n in range(3)
    ]  # fmt: skip


def written(folder: Path) -> list[tuple[int, int]]:
    return [(r["repeat"], r["index"]) for r in map(json.loads, (folder / "requests.jsonl").read_text().splitlines())]


def test_a_cell_waits_for_room_and_is_kept(disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("workloads.room.AGAIN_S", 0.05)
    ledger = Ledger(disk.path, "hash")
    ledger.commit("a", cell(0), requests(0), 1.0)
    disk.fill()
    freed = threading.Timer(0.6, disk.free)
    freed.start()
    assert ledger.commit("b", cell(1), requests(1, 1 << 20), 2.0).failure is None
    freed.join()
    assert written(disk.path) == [(n, i) for n in (0, 1) for i in range(3)]
    assert [entry.key for entry in read_ledger(disk.path / "cells.jsonl").entries] == ["a", "b"]
    assert ledger.entries[1].wall_s < 0.5, "the wait is no part of the cell"
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 2
    assert "requests.jsonl: b: [Errno 28] No space left on device; free some space: it is tried again for 300 s" in said[0]


@pytest.mark.parametrize(("size", "kept"), [(8192, True), (1 << 20, False)])
def test_a_disk_that_stays_full_is_a_recorded_failure_and_the_cell_is_measured_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, size: int, kept: bool
) -> None:
    """Requests that fit into the reserve are kept all the same."""
    monkeypatch.setattr("workloads.room.AGAIN_S", 0.05)
    monkeypatch.setattr("workloads.room.WAIT_S", 0.2)
    ledger = Ledger(disk.path, "hash")
    ledger.commit("a", cell(0), requests(0), 1.0)
    disk.fill()
    with pytest.raises(NoRoom) as full:
        ledger.commit("b", cell(1), requests(1, size), 2.0)
    assert says_what_to_do(str(full.value))
    assert f"and this cell is {'kept' if kept else 'measured again'}" in str(full.value)
    entries = read_ledger(disk.path / "cells.jsonl").entries
    assert [(e.key, e.cell.failure) for e in entries] == [("a", None), ("b", None if kept else "disk_full")]
    assert written(disk.path) == [(n, i) for n in ((0, 1) if kept else (0,)) for i in range(3)]
    disk.free()
    again = Ledger(disk.path, "hash")
    assert set(again.done) == ({"a", "b"} if kept else {"a"}), "it ended the sweep, so it is what the next one begins with"
    if not kept:
        again.commit("b", cell(1), requests(1, size), 3.0)
    assert written(disk.path) == [(n, i) for n in (0, 1) for i in range(3)]
    assert [(e.key, e.cell.failure) for e in read_ledger(disk.path / "cells.jsonl").entries] == [("a", None), ("b", None)]


def test_a_sweep_on_a_disk_that_stays_full_ends_and_the_same_command_measures_the_rest(disk: Disk, tiny_model: Path) -> None:
    folder = disk.path / "run"
    folder.mkdir()
    spec = BenchSpec.model_validate_json(json.dumps({
        "engines": ["echo"], "models": [{"name": str(tiny_model), "label": "tiny"}], "concurrency": [1], "repeats": 4,
        "prompts": {"count": 24}, "sampling": {"max_new_tokens": 4}, "max_model_len": 512, "warmup_requests": 0,
        "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
    }))  # fmt: skip
    (folder / "spec.yaml").write_text(dump_spec(spec))
    command = [sys.executable, "-c", BENCH, "--run", str(folder)]
    done = subprocess.run([*command, "[2, null]", str(disk.path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("Error: "), "Traceback" in done.stderr) == (1, 1, False), done.stderr
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert (record.status, len(record.bench.cells)) == ("failed", 3)
    assert "free some space and start the same command again" in record.reason
    disk.free()
    done = subprocess.run([*command, "[null, null]", str(disk.path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert written(folder) == [(n, i) for n in range(4) for i in range(24)]
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert [(c.repeat, c.failure) for c in record.bench.cells] == [(n, None) for n in range(4)]
