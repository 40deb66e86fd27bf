"""Following a run directory: what is counted stays right when a run goes on from a checkpoint, which writes its records anew;
what the newest sample lacks comes from those just before it, and each XID counts once."""

import json
import os
from pathlib import Path

import pytest

from ncdemo.report.watched import Watched
from ncdemo.spec.follow import HELD_S, RunState, last_sample
from ncdemo.spec.gpu_errors import GpuErrors

STEP = {"step_time_s": 0.5, "examples": 4, "tokens": 100, "target_tokens": 60, "loss": 1.0}


def put(path: Path, records: list[dict]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(record) + "\n" for record in records))
    os.replace(part, path)


@pytest.mark.parametrize("went_on_to", [7, 12])
@pytest.mark.parametrize("kind", [RunState, Watched])
def test_steps_that_come_again_are_counted_once(went_on_to: int, kind: type[RunState], tmp_path: Path) -> None:
    """Killed after step 10, gone on from the checkpoint of step 5; looked at when its records are fewer than before, or more."""
    (tmp_path / "result.json").write_text("{}")
    put(tmp_path / "steps.jsonl", [STEP | {"step": n} for n in range(1, 11)])
    state = kind(tmp_path)
    state.update()
    assert state.totals["tokens"] == 1000
    put(tmp_path / "steps.jsonl", [STEP | {"step": n} for n in range(1, went_on_to + 1)])
    state.update()
    assert state.totals == {"steps": went_on_to, "examples": 4 * went_on_to, "tokens": 100 * went_on_to,
                            "target_tokens": 60 * went_on_to, "step_time_s": 0.5 * went_on_to}  # fmt: skip
    assert len(getattr(state, "losses", [0] * went_on_to)) == went_on_to


def test_requests_of_an_unfinished_cell_that_are_cut_off_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    requests = [{"engine": "vllm", "ok": True, "sent_s": n, "chunk_s": [n + 0.5]} for n in range(8)]
    put(tmp_path / "requests.jsonl", requests)
    state = RunState(tmp_path)
    state.update()
    put(tmp_path / "requests.jsonl", requests[:5])
    state.update()
    assert state.requests == {"vllm": {True: 5, False: 0}}


@pytest.mark.parametrize("waves", [1, 3, 40])
def test_the_rate_of_the_last_requests_is_that_of_what_was_generated_in_their_time(waves: int, tmp_path: Path) -> None:
    """Four streams of 50 tokens/s each: 64 tokens every 1.28 s."""
    (tmp_path / "result.json").write_text("{}")
    ends = [1.28 * wave + 0.01 * stream for wave in range(1, waves + 1) for stream in range(4)]
    requests = [{"engine": "vllm", "ok": True, "output_tokens": 64, "sent_s": end - 1.28, "chunk_s": [end - 1.2, end]} for end in ends]
    put(tmp_path / "requests.jsonl", requests)
    watched = Watched(tmp_path)
    watched.update()
    assert watched.output_tokens_per_s == pytest.approx(4 * 50, rel=0.03)


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


def test_the_first_sample_of_an_attempt_takes_nothing_from_the_attempt_before(tmp_path):
    path = tmp_path / "samples.jsonl"
    write(path, {"time_s": 9.8, "tick": 20, "cpu_pct": 50.0, "gpus": [gpu(ecc_corrected=3)]})
    write(path, {"time_s": 10.0, "tick": 0, "cpu_pct": None, "gpus": [gpu(power_w=90.0)]})
    assert last_sample(path) == {"time_s": 10.0, "tick": 0, "cpu_pct": None, "gpus": [gpu(power_w=90.0)]}
    write(path, {"time_s": 10.5, "tick": 1, "cpu_pct": 7.0, "gpus": [gpu()]})
    assert last_sample(path)["gpus"] == [gpu(power_w=90.0)]
    write(path, {"time_s": 10.6, "tick": 3, "scheduling": "niceness 0", "cpu_pct": None, "gpus": [gpu()]})
    assert last_sample(path)["cpu_pct"] is None, "another attempt's, whose first ticks were lost"


def test_xids_are_counted_once_each(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    path = tmp_path / "samples.jsonl"
    state = RunState(tmp_path)
    write(path, {"time_s": 0.0, "gpus": [gpu(xids=None)]}, {"time_s": 1.0, "gpus": [gpu(xids=[63, 63]), gpu(1, xids=[79])]})
    state.update()
    state.update()
    write(path, {"time_s": 2.0, "gpus": [gpu(xids=[63])]}, {"time_s": 3.0, "gpus": [gpu()]})
    state.update()
    assert state.errors.xids == {(0, 63): 3, (1, 79): 1}
    write(path, {"time_s": 4.0, "scheduling": "niceness 0", "gpus": [gpu(xids=[13])]}, {"time_s": 5.0, "gpus": [gpu(xids=[])]})
    state.update()
    assert state.errors.xids == {(0, 13): 1}, "those of the attempt before may be of another machine's GPUs"


def test_memory_errors_are_those_that_came_during_the_run(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    path = tmp_path / "samples.jsonl"
    state = RunState(tmp_path)
    first = {"time_s": 0.0, "scheduling": "niceness 0", "gpus": [gpu(), gpu(1)]}
    write(path, first, {"time_s": 1.0, "gpus": [gpu(ecc_uncorrected=7), gpu(1, ecc_uncorrected=0)]})
    state.update()
    assert state.errors.ecc == {0: 0, 1: 0}, "7 are from before"
    write(path, {"time_s": 1.5, "gpus": [gpu(), gpu(1)]}, {"time_s": 2.0, "gpus": [gpu(ecc_uncorrected=8), gpu(1, ecc_uncorrected=2)]})
    state.update()
    state.update()
    assert state.errors.ecc == {0: 1, 1: 2}
    write(path, first, {"time_s": 3.0, "gpus": [gpu(ecc_uncorrected=9)]}, {"time_s": 4.0, "gpus": [gpu(ecc_uncorrected=10)]})
    state.update()
    assert state.errors.ecc == {0: 2, 1: 2}, "the next attempt ran on a machine that had 9"
    write(path, first, {"time_s": 5.0, "gpus": [gpu(ecc_uncorrected=10)]}, {"time_s": 6.0, "gpus": [gpu(ecc_uncorrected=11)]})
    state.update()
    assert state.errors.ecc == {0: 3, 1: 2}, "and the one after it began with just as many"


def test_only_lines_that_tell_of_errors_are_parsed(tmp_path):
    errors = GpuErrors()
    calm = json.dumps({"time_s": 1.0, "gpus": [gpu(ecc_uncorrected=7)]}).encode()
    told = [errors.tells(calm), errors.tells(calm), errors.tells(b'{"gpus": []}'), errors.tells(calm), errors.tells(b'{"xids":[31]}')]
    assert told == [True, False, False, False, True]
