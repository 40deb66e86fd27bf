"""The record files of a run whose disk is full at its end: what the reserve has room for is written, and what is lost is said."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ncdemo.spec import TrainSpec
from ncdemo.spec.result import EvalRecord
from tests.full_disk import Disk, small_disk
from tests.remedy import says_what_to_do
from workloads.records import Records
from workloads.room import NoRoom
from workloads.run import open_run
from workloads.stop import StopRequest


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", mib=4) as disk:
        yield disk


def steps(folder: Path) -> list[int]:
    return [EvalRecord.model_validate_json(line).step for line in (folder / "evals.jsonl").read_text().splitlines()]


def fill(records: Records, disk: Disk) -> None:
    """Append 100 records, the disk being full after the first."""
    for step in range(100):
        records.append(
            "evals.jsonl", EvalRecord(step=step, end_s=1, loss=1, perplexity=2, token_accuracy=0.5, target_tokens=1, eval_time_s=1)
        )
        if step == 0:
            disk.fill()


def test_the_reserve_has_room_for_what_is_held_at_the_end(disk: Disk) -> None:
    records = Records(disk.path, print)
    records.reserve.keep()
    fill(records, disk)
    assert len(steps(disk.path)) < 50
    records.settle(0.0)
    assert steps(disk.path) == list(range(100))
    (outage,) = records.outages(0)
    assert (outage.lost, outage.why) == (0, "No space left on device")
    assert outage.held > 50
    assert outage.end_s > outage.start_s
    assert (disk.path / ".reserve").stat().st_size > 500_000, "what it didn't take is kept for result.json"


def test_what_is_lost_is_said_with_the_remedy(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.records.AGAIN_S", 0.05)
    said: list[str] = []
    records = Records(disk.path, said.append)
    fill(records, disk)
    there = len(steps(disk.path))
    began = time.monotonic()
    with pytest.raises(NoRoom, match=rf"so {100 - there} records of evals.jsonl are lost; free some space and start the same") as lost:
        records.settle(0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert says_what_to_do(str(lost.value))
    (outage,) = records.outages(0)
    assert (outage.held, outage.lost, outage.end_s) == (100 - there, 100 - there, None)
    assert steps(disk.path) == list(range(there)), "whole lines"
    assert len(said) == 2


def test_room_that_comes_while_the_end_waits_loses_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.records.AGAIN_S", 0.05)
    records = Records(disk.path, print)
    fill(records, disk)
    threading.Timer(0.3, disk.free).start()
    records.settle(30.0)
    assert steps(disk.path) == list(range(100))


def record(step: int) -> EvalRecord:
    return EvalRecord(step=step, end_s=1, loss=1, perplexity=2, token_accuracy=0.5, target_tokens=1, eval_time_s=1)


def test_a_disk_that_is_read_only_for_a_while_holds_nobody_up_and_loses_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.metrics.lines.AGAIN_S", 0.0)
    said: list[str] = []
    records = Records(disk.path, said.append)
    records.append("evals.jsonl", record(0))
    disk.lock()
    for step in range(1, 50):
        records.append("evals.jsonl", record(step))
    assert steps(disk.path) == [0]
    disk.unlock()
    records.append("evals.jsonl", record(50))
    assert steps(disk.path) == list(range(51))
    (outage,) = records.outages(0)
    assert (outage.why, outage.held, outage.lost) == ("Read-only file system", 50, 0)
    assert says_what_to_do(said[0])
    assert "Read-only file system; make it writable again" in said[0]


def test_what_a_disk_that_stays_read_only_loses_is_said(disk: Disk) -> None:
    records = Records(disk.path, print)
    records.append("evals.jsonl", record(0))
    disk.lock()
    records.append("evals.jsonl", record(1))
    with pytest.raises(NoRoom, match=r"Read-only file system, so 1 records of evals.jsonl are lost; make it writable again and start"):
        records.settle(0.0)
    (outage,) = records.outages(0)
    assert (outage.held, outage.lost, outage.end_s) == (1, 1, None)


def test_an_error_that_no_waiting_mends_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Records(tmp_path / "gone", print).append("evals.jsonl", record(0))


def test_a_run_that_begins_on_a_read_only_disk_says_so_in_one_line(disk: Disk) -> None:
    disk.lock()
    with (
        pytest.raises(NoRoom, match=r"Read-only file system; make it writable again, or set NCDEMO_RUNS to") as refused,
        open_run(disk.path / "run", TrainSpec(), stop=StopRequest()),
    ):
        pass
    assert says_what_to_do(str(refused.value))
