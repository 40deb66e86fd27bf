"""The sampler's file: order, whole lines, and what is lost when there is no room."""

import json
import subprocess
import sys
import time

from workloads.metrics.lines import Lines, Writer


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
        writer.add({"tick": tick, "gpus": answer})
    time.sleep(0.4)
    assert lines(path) == 1
    late._rows = [{"index": 0}]
    writer.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"tick": 0, "gpus": []},
        {"tick": 1, "gpus": [{"index": 0}]},
        {"tick": 2, "gpus": []},
    ]


def test_what_is_held_for_a_disk_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("workloads.metrics.lines.MOST", 3)
    said = []
    writer = Writer(str(tmp_path / "samples.jsonl"), said.append)
    for tick in range(5):
        writer.add({"tick": tick, "gpus": Given([])})
    writer.close()
    assert (writer.lost, lines(tmp_path / "samples.jsonl")) == (2, 3)
    assert said == [f"{tmp_path}/samples.jsonl: the disk takes too long; samples are lost until there is room"]


def test_of_lines_that_do_not_fit_the_whole_ones_stay(tmp_path):
    """A limit of 20 bytes on files, in a process of its own: two lines of 8 fit, the third is cut and taken back."""
    code = """
import resource, sys
from workloads.metrics.lines import Lines
resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
lines = Lines(sys.argv[1])
print(lines.write([b"1234567\\n"] * 4), lines.lost)
print(lines.write([b"1\\n"]), lines.lost)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "lines"], capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout.splitlines() == ["20 of 32 bytes were written 2", "None 2"]
    assert (tmp_path / "lines").read_bytes() == b"1234567\n1234567\n1\n"
    assert Lines(str(tmp_path / "lines")).lost == 0
