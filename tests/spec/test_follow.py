"""A run that is followed while it grows: what its newest sample lacks comes from those just before it, and each XID counts once."""

import json

from ncdemo.spec.follow import HELD_S, RunState, last_sample


def write(path, *samples):
    with path.open("a") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)


def gpu(index=0, **fields):
    return {"index": index, "error": None, "power_w": None, "xids": [], **fields}


def test_the_newest_sample_has_what_the_last_two_seconds_had(tmp_path):
    path = tmp_path / "samples.jsonl"
    write(
        path,
        {"time_s": 0.0, "cpu_pct": 99.0, "gpus": [gpu(ecc_corrected=1, pcie_tx_bytes_per_s=5.0)]},
        {"time_s": 10.0, "cpu_pct": 7.0, "gpus": [gpu(ecc_corrected=3), gpu(1, ecc_corrected=4)]},
        {"time_s": 10.5, "cpu_pct": None, "gpus": [gpu(power_w=300.0, xids=[63]), gpu(1)]},
        {"time_s": 10.6, "cpu_pct": None, "gpus": [gpu(), gpu(1, error="GPU is lost")]},
    )
    found = last_sample(path)
    assert HELD_S < 9
    assert (found["time_s"], found["cpu_pct"]) == (10.6, 7.0)
    one, lost = found["gpus"]
    assert one == gpu(power_w=300.0, ecc_corrected=3), "an XID is of its own sample"
    assert lost == gpu(1, error="GPU is lost"), "what it said before it was lost is over"


def test_xids_are_counted_once_each(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    path = tmp_path / "samples.jsonl"
    state = RunState(tmp_path)
    write(path, {"time_s": 0.0, "gpus": [gpu(xids=None)]}, {"time_s": 1.0, "gpus": [gpu(xids=[63, 63]), gpu(1, xids=[79])]})
    state.update()
    state.update()
    write(path, {"time_s": 2.0, "gpus": [gpu(xids=[63])]}, {"time_s": 3.0, "gpus": [gpu()]})
    state.update()
    assert state.xids == {(0, 63): 3, (1, 79): 1}
