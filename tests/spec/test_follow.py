"""Following a run directory: what is counted stays right when a run goes on from a checkpoint, which writes its records anew."""

import json
import os
from pathlib import Path

import pytest

from ncdemo.report.watched import Watched
from ncdemo.spec.follow import RunState

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
