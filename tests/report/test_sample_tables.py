"""Reading many samples quickly comes to what reading them one by one does, however the file is cut into chunks and tables."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest

from ncdemo.report import lines, sample_tables
from ncdemo.report.lines import records
from ncdemo.report.sample_rows import row_lines
from ncdemo.report.samples import HOST, to_telemetry
from ncdemo.spec.gpu_errors import FAULTS
from workloads.metrics.gpu import REASONS

FAST = ("utilization_pct", "memory_used_bytes", "power_w")
CUTS = [(300, 1), (4096, 50), (1 << 18, 1 << 15)]
"""Bytes of a chunk, which may be less than a line, and rows of a table."""


def samples(seed, count=300, gpus=2):
    """Return samples as the sampler may write them: some values null, slow fields now and then, a second attempt, a GPU away for a while."""
    pick = random.Random(seed)

    def some(value):
        return None if pick.random() < 0.1 else value

    def gpu(index, i):
        if i == 150:
            return {"index": index, "error": "Unknown error.", "xids": [79]}
        row = {"index": index, "error": None, **{name: some(pick.randrange(10**9)) for name in FAST}}
        row |= {"throttle_reasons": some(pick.sample(REASONS, pick.randrange(3))), "xids": some([63, 63][: pick.randrange(40)])}
        if pick.random() < 0.5:
            taken = [{"pid": pick.randrange(3), "memory_bytes": some(pick.randrange(10**9))} for _ in range(pick.randrange(3))]
            row |= {"nvlink_tx_bytes": i * 1000, "pcie_tx_bytes_per_s": some(pick.random()), "ecc_corrected": some(i // 9)}
            row |= {"processes": some(taken)}
        return row

    return [
        {
            "tick": i % 200,
            "unix_s": 1e9 + i,
            "time_s": i / 2,
            **{name: some(pick.random() * 1e9) for name in HOST[1:]},
            "gpus": [gpu(index, i) for index in range(gpus) if pick.random() < 0.95],
        }
        for i in range(count)
    ]


def read(path, monkeypatch, cut, typed=row_lines):
    monkeypatch.setattr(lines, "CHUNK_BYTES", cut[0])
    monkeypatch.setattr(sample_tables, "ROWS", cut[1])
    return to_telemetry(records(path, [], typed))


@pytest.mark.parametrize("typed", [row_lines, None])
@pytest.mark.parametrize("cut", CUTS)
def test_random_samples_come_to_what_they_say(tmp_path, monkeypatch, cut, typed):
    written = samples(seed=cut[1])
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in written))
    found = read(path, monkeypatch, cut, typed)
    for name in HOST:
        assert_is(found.host[name], [sample[name] for sample in written])
    for index in (0, 1):
        rows = [(s["time_s"], gpu) for s in written for gpu in s["gpus"] if gpu["index"] == index]
        told = [(at, gpu) for at, gpu in rows if gpu["error"] or any(gpu[name] is not None for name in FAST)]
        assert_is(found.gpus[index]["time_s"], [at for at, _ in told])
        for name in FAST:
            assert_is(found.gpus[index][name], [gpu.get(name) for _, gpu in told])
        reasons = [gpu.get("throttle_reasons") for _, gpu in told]
        assert_is(found.gpus[index]["slowed_pct"], [None if known is None else 100 * any(r in FAULTS for r in known) for known in reasons])
        assert found.health[index].xids == [(at, xid) for at, gpu in rows for xid in gpu["xids"] or ()]
        counts = [(gpu["ecc_corrected"], at >= 100) for at, gpu in rows if gpu.get("ecc_corrected") is not None]
        gains = [b[0] - a[0] for a, b in pairwise(counts) if a[1] == b[1]]
        assert found.health[index].ecc["corrected"] == sum(gains)
        sent = [(at, gpu.get("pcie_tx_bytes_per_s")) for at, gpu in rows if gpu["error"] or "pcie_tx_bytes_per_s" in gpu]
        assert_is(found.links[index]["pcie_tx_bytes_per_s"][0], [at for at, _ in sent])
        assert_is(found.links[index]["pcie_tx_bytes_per_s"][1], [rate for _, rate in sent])
        ran = [(at, p) for at, gpu in rows for p in gpu.get("processes") or () if p["memory_bytes"] is not None]
        for pid in range(3):
            assert_is(found.processes[index, pid][0], [at for at, p in ran if p["pid"] == pid])
            assert_is(found.processes[index, pid][1], [p["memory_bytes"] for _, p in ran if p["pid"] == pid])
        lost = next((at, gpu["error"]) for at, gpu in rows if gpu["error"])
        assert [(loss.at_s, loss.why, loss.returned) for loss in found.lost if loss.index == index] == [(lost[0], "Unknown error", True)]


def assert_is(column, values):
    np.testing.assert_array_equal(column, np.array(values, dtype=float))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("end", ["", "\n", '\n{"tick": 3, "ti'])
def test_where_a_chunk_ends_makes_no_difference(tmp_path, monkeypatch, cut, end):
    path, problems = tmp_path / "samples.jsonl", []
    whole = [json.dumps({"time_s": float(i), "note": "x" * (i * 37 % 1500)}) for i in range(200)]
    path.write_text("\n".join(whole) + end)
    monkeypatch.setattr(lines, "CHUNK_BYTES", cut[0])
    found = to_telemetry(records(path, problems, row_lines))
    assert list(found.host["time_s"]) == [float(i) for i in range(200)]
    assert [said.partition(":")[2][:29] for said in problems] == [" the last line (line 201) is t"[:29]] * ("ti" in end)


@pytest.mark.parametrize(
    "strange",
    [
        b'"error": "\xff"',
        b'"xids": 5',
        b'"throttle_reasons": 5',
        b'"processes": 5',
        b'"processes": [{"pid": 1%s}]' % (b"0" * 400),
        b'"power_w": 1%s' % (b"0" * 400),
    ],
)
def test_a_value_of_another_kind_costs_itself_alone(tmp_path, strange):
    path = tmp_path / "samples.jsonl"
    odd = b'{"time_s": 1, "gpus": [{"index": 0, "utilization_pct": 7, %s}, {"index": 1%s}]}\n' % (strange, b"0" * 400)
    path.write_bytes(b'{"time_s": 0, "gpus": [{"index": 0, "utilization_pct": 5}]}\n' + odd)
    problems = []
    found = to_telemetry(records(path, problems, row_lines))
    assert problems == []
    assert list(found.gpus) == [0]
    assert list(found.gpus[0]["utilization_pct"]) == [5, 7]
    assert found.processes == {}
