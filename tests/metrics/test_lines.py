"""Files of whole lines on a disk that is full for a while: all of them in order, each once; and the sampler's writer."""

import errno
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.full_disk import Disk, small_disk
from workloads.metrics.lines import Lines
from workloads.metrics.sample_writer import Writer


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", mib=1) as disk:
        yield disk


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


class Given:
    """An answer of NVML that is there at once, or never."""

    def __init__(self, rows):
        self._rows = rows

    def rows(self):
        return self._rows


def test_samples_are_written_in_order_however_late_nvml_answers(tmp_path):
    path, late = tmp_path / "samples.jsonl", Given(None)
    writer = Writer(str(path), print)
    for tick, answer in enumerate([Given([]), late, Given([])]):
        writer.add({"tick": tick}, answer, dict)
    time.sleep(0.4)
    assert lines(path) == 1
    late._rows = [{"index": 0}]
    writer.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"tick": 0, "gpus": []},
        {"tick": 1, "gpus": [{"index": 0}]},
        {"tick": 2, "gpus": []},
    ]


def test_what_is_held_for_a_disk_that_hangs_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("workloads.metrics.sample_writer.MOST", 3)
    said = []
    writer = Writer(str(tmp_path / "samples.jsonl"), said.append)
    for tick in range(5):
        writer.add({"tick": tick}, Given([]), dict)
    writer.close()
    assert (writer.lost, lines(tmp_path / "samples.jsonl")) == (2, 3)
    assert said == [f"{tmp_path}/samples.jsonl: the disk takes too long; samples are lost until it answers"]


@pytest.mark.parametrize("keep_open", [False, True])
def test_a_disk_that_is_full_now_and_then_loses_no_line_and_repeats_none(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, keep_open: bool
) -> None:
    """Lines of all lengths, so that some fit by half; the disk is filled and freed thirty times."""
    monkeypatch.setattr("workloads.metrics.lines.AGAIN_S", 0.0)
    chance, said, seen_half = random.Random(0), [], 0
    path = disk.path / "lines"
    file = Lines(path, said.append, keep_open=keep_open)
    wrote: list[bytes] = []
    for turn in range(60):
        (disk.fill if turn % 2 == 0 else disk.free)()
        for _ in range(20):
            line = f"{len(wrote)} ".encode() + b"x" * chance.randrange(1, 700) + b"\n"
            wrote.append(line)
            file.write([line])
            data = path.read_bytes() if path.exists() else b""
            seen_half += data != b"".join(wrote)[: len(data)] or data[-1:] not in (b"", b"\n")
    assert file.flush() is None
    assert (path.read_bytes(), file.held, file.lost, seen_half) == (b"".join(wrote), 0, 0, 0)
    assert 20 < len(file.outages) <= 30
    assert all(o.end_s and o.end_s > o.start_s and o.held and o.why == os.strerror(errno.ENOSPC) for o in file.outages)
    assert len(said) == 2 * len(file.outages), "the beginning and the end of each, and nothing per line"
    assert "No space left on device; free some space" in said[0]
    assert f"there is room again after {file.outages[0].end_s - file.outages[0].start_s:.1f} s; {file.outages[0].held} lines" in said[1]


def test_what_is_held_for_a_full_disk_is_bounded_and_what_is_lost_counted(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.metrics.lines.MOST_BYTES", 1000)
    said: list[str] = []
    disk.fill()
    file = Lines(disk.path / "lines", said.append)
    for n in range(100, 300):
        file.write([b"%d x\n" % n])
    assert (file.held, file.lost) == (166, 34)
    disk.free()
    assert file.flush() is None
    assert [int(line[:3]) for line in (disk.path / "lines").read_text().splitlines()] == list(range(100, 266))
    assert (len(said), "34 are lost" in said[-1]) == (3, True)


def test_after_an_error_of_a_network_mount_its_half_line_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO comes when a mount is closed, with some of the data there or none: nobody can say which."""
    file, close, away = Lines(tmp_path / "lines", print), os.close, [True]
    assert file.write([b"first\n"]) is None

    def lose(fd: int) -> None:
        if away:
            os.truncate(tmp_path / "lines", 9)
            close(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        close(fd)

    monkeypatch.setattr("workloads.metrics.lines.os.close", lose)
    assert file.write([b"second\n"]).errno == errno.EIO
    assert (tmp_path / "lines").read_bytes() == b"first\nsec"
    away.clear()
    file.write([b"third\n"])
    assert file.flush() is None
    assert (tmp_path / "lines").read_bytes() == b"first\nsecond\nthird\n"


def test_a_signal_amid_a_write_neither_loses_nor_repeats_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, write = Lines(tmp_path / "lines", print), os.write
    file.write([b"first\n"])

    def stopped(fd: int, data: bytes) -> int:
        write(fd, data)
        raise KeyboardInterrupt

    monkeypatch.setattr("workloads.metrics.lines.os.write", stopped)
    with pytest.raises(KeyboardInterrupt):
        file.write([b"second\n"])
    monkeypatch.undo()
    assert file.flush() is None
    assert (tmp_path / "lines").read_bytes() == b"first\nsecond\n"


def test_of_lines_that_do_not_fit_the_whole_ones_stay(tmp_path):
    """A limit of 20 bytes on files, in a process of its own: two lines of 8 fit, the third is cut and taken back."""
    code = """
import resource, sys
from workloads.metrics.lines import Lines
resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
lines = Lines(sys.argv[1], lambda words: None)
print(lines.write([b"1234567\\n"] * 4), lines.held, open(sys.argv[1]).read().split())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(lines.flush(), lines.held)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "lines"], capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout.splitlines() == ["[Errno 28] No space left on device 2 ['1234567', '1234567']", "None 0"]
    assert (tmp_path / "lines").read_bytes() == b"1234567\n" * 4
