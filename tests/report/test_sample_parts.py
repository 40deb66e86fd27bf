"""A long file that several processes read comes to what one process makes of it, also where a process is killed."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ncdemo.report.lines import records
from ncdemo.report.sample_rows import row_lines
from ncdemo.report.samples import to_telemetry
from tests.report.test_sample_tables import samples

# In a process of its own: the reader forks only where no other thread runs.
READ = """
import os, pickle, signal, sys
from pathlib import Path
from ncdemo.report import sample_parts
from ncdemo.report.samples import read_telemetry

path, killed = Path(sys.argv[1]), sys.argv[2] == "killed"
sample_parts.PART_BYTES = 20_000
os.sched_getaffinity = lambda _: range(3)
parent, used, whole = os.getpid(), [], sample_parts.ProcessPoolExecutor

def pool(processes, context):
    used.append(processes)
    return whole(processes, context)

def dies(*_):
    assert os.getpid() != parent
    os.kill(os.getpid(), signal.SIGKILL)

if killed:
    sample_parts.tables = dies
sample_parts.ProcessPoolExecutor = pool
problems = []
found = read_telemetry(path, problems)
pickle.dump((found, problems, used), sys.stdout.buffer)
"""


def read(path: Path, how: str = "whole") -> tuple:
    return pickle.loads(subprocess.run([sys.executable, "-c", READ, path, how], check=True, stdout=subprocess.PIPE, timeout=100).stdout)


def assert_same(one, other):
    if dataclasses.is_dataclass(one):
        one, other = vars(one), vars(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("how", ["whole", "killed"])
@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({}, []),
        ({100: "{torn", 700: "[]"}, ["samples.jsonl: 2 lines are not JSON records (the first is line 101); they are left out."]),
        ({799: '{"tick": 3, "ti'}, ["samples.jsonl: the last line (line 800) is torn: the run was cut off while it wrote; the line is left out."]),
        ({300: '{"time_s": 1, "gpus": 5}', 301: "x" * 50_000}, ["samples.jsonl: 1 lines are not JSON records (the first is line 302); they are left out."]),
    ],
    ids=["whole", "two bad lines", "a torn end", "a line longer than a part"],
)  # fmt: skip
def test_parts_come_to_the_whole(tmp_path, odd, said, how):
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(odd.get(i, json.dumps(sample)) + "\n" * (i < 799) for i, sample in enumerate(samples(seed=5, count=800))))
    assert path.stat().st_size > 10 * 20_000
    problems: list[str] = []
    one = to_telemetry(records(path, problems, row_lines))
    found, told, used = read(path, how)
    assert used == [3]
    assert told == problems == said
    assert_same(found, one)


def test_a_file_that_is_absent_or_no_file_is_read_as_ever(tmp_path):
    found, told, used = read(tmp_path / "samples.jsonl")
    assert (found.count, told, used) == (0, [], [])
    found, told, used = read(tmp_path)
    assert (found.count, told, used) == (0, [f"{tmp_path.name} cannot be read (Is a directory)."], [])
