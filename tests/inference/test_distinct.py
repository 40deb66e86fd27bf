"""Each load, length and repeat asks prompts that nothing asked before, where a prefix cache can't be emptied; and each repeat at its own times."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from ncdemo.report.fairness import flags, refusal
from ncdemo.spec import BenchSpec, SpecError
from ncdemo.spec.sweep import PlannedCell, cells, searches
from tests.inference.conftest import SPEC, Swept
from workloads.data.models import load_tokenizer
from workloads.inference.asked import Asked, asked
from workloads.inference.asking import KEPT, Asking
from workloads.inference.subject import Failed

LENGTHS = [{"input_tokens": 24, "output_tokens": 4}]


@pytest.fixture
def spec_of(tiny_model: Path) -> Callable[..., BenchSpec]:
    def make(**changes) -> BenchSpec:
        about = {"models": [{"name": str(tiny_model), "label": "canned"}], "engines": ["openai"], "url": "http://127.0.0.1:9"}
        return BenchSpec.model_validate_json(json.dumps({**SPEC, **about, **changes}))

    return make


def asked_by(spec: BenchSpec, plans: list[PlannedCell]) -> list[Asked]:
    tokenizer = load_tokenizer(spec.models[0])
    return [asked(spec, plan, tokenizer) for plan in plans]


def ids(prompts) -> set[tuple[int, ...]]:
    return {prompt.token_ids for prompt in prompts}


def all_differ(made: list[Asked], each: int, warm: int) -> bool:
    found = [ids(what.prompts) for what in made]
    assert {len(one) for one in found} == {each}
    assert {tuple(p.token_ids for p in what.warm_up) for what in made} == {tuple(p.token_ids for p in made[0].warm_up)}
    return len(set().union(*found, ids(made[0].warm_up))) == each * len(made) + warm


def rows(path: Path, count: int) -> str:
    path.write_text("".join(json.dumps({"prompt": f"Say {i}.", "reference": str(i)}) + "\n" for i in range(count)))
    return str(path)


def test_synthesised_prompts_differ_between_all_cells_and_are_the_same_for_every_engine(spec_of: Callable[..., BenchSpec]) -> None:
    spec = spec_of(engines=["openai", "echo"], lengths=LENGTHS, concurrency=[2, 4], repeats=3, arrivals={"rates_rps": [5]})
    plans = cells(spec)
    outside, ours = ([p for p in plans if p.subject.engine == engine] for engine in ("openai", "echo"))
    made = asked_by(spec, outside)
    assert all_differ(made, each=24, warm=2)
    by_key = {(p.setting, p.repeat): what.hash for p, what in zip(outside, made, strict=True)}
    assert by_key == {(p.setting, p.repeat): what.hash for p, what in zip(ours, asked_by(spec, ours), strict=True)}
    assert all(what.distinct for what in made)


def test_rows_of_a_file_are_asked_once(spec_of: Callable[..., BenchSpec], tmp_path: Path) -> None:
    prompts = {"file": rows(tmp_path / "rows.jsonl", 26), "count": 4}
    spec = spec_of(prompts=prompts, concurrency=[1, 2], repeats=3)
    made = asked_by(spec, cells(spec))
    assert all_differ(made, each=4, warm=2)
    assert [what.references for what in made[:2]] == [["2", "3", "4", "5"], ["6", "7", "8", "9"]], "the first two are the warm-up's"
    assert [p.index for p in made[-1].prompts] == [0, 1, 2, 3]
    assert made[0].rows.used == 4
    short = spec_of(lengths=LENGTHS, prompts={"count": 1}, warmup_requests=3)
    assert asked_by(short, cells(short))[0].before(3).output_tokens == [4, 4, 4]


def test_a_file_with_too_few_rows_is_asked_again_unless_the_spec_insists(spec_of: Callable[..., BenchSpec], tmp_path: Path) -> None:
    prompts = {"file": rows(tmp_path / "rows.jsonl", 25), "count": 4}
    spec = spec_of(prompts=prompts, concurrency=[1, 2], repeats=3)
    made = asked_by(spec, cells(spec))
    assert len({what.hash for what in made}) == 1
    assert not any(what.distinct for what in made)
    insists = spec_of(prompts={**prompts, "distinct": True}, concurrency=[1, 2], repeats=3)
    with pytest.raises(
        SpecError,
        match=r"has 25 prompts that differ within 64 tokens, and 26 are asked for \(2 loads x 3 repeats x 4, and 2 of the warm-up\)",
    ):
        asked_by(insists, cells(insists)[:1])
    with pytest.raises(ValidationError, match="a search asks as many prompts as it likes, so they must be synthesised; give lengths"):
        spec_of(prompts={**prompts, "count": 300, "distinct": True}, concurrency=None, search={})


def test_rows_that_begin_alike_are_left_out_and_others_read_on(spec_of: Callable[..., BenchSpec], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    same = "The same beginning, over and over, so that it is longer than any template of a chat is. " * 12
    told = ["Say 0.", *(f"{same}{i}" for i in range(20)), *(f"Say {i}." for i in range(1, 30))]
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in told))
    spec = spec_of(prompts={"file": str(file), "count": 4}, concurrency=[1, 2], repeats=3, max_model_len=2048)
    made = asked_by(spec, cells(spec))
    assert all_differ(made, each=4, warm=2)
    assert sum(same[:60] in prompt.messages[0]["content"] for what in made for prompt in (*what.prompts, *what.warm_up)) <= 7, (
        "the warm-up is in each"
    )


def test_a_broken_row_far_down_is_no_reason_to_end_a_run_that_did_not_insist(spec_of: Callable[..., BenchSpec], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows(file, 10)
    file.write_text(file.read_text() + "no JSON\n")
    spec = spec_of(prompts={"file": str(file), "count": 4}, concurrency=[1, 2], repeats=3)
    assert not any(what.distinct for what in asked_by(spec, cells(spec)))
    insists = spec_of(prompts={"file": str(file), "count": 4, "distinct": True}, concurrency=[1, 2], repeats=3)
    with pytest.raises(SpecError, match="not JSON"):
        asked_by(insists, cells(insists)[:1])


@pytest.mark.parametrize("reuse", [True, False])
def test_a_trace_whose_prompts_share_beginnings_is_distinct_only_where_that_is_wanted(
    spec_of: Callable[..., BenchSpec], tmp_path: Path, reuse: bool
) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [{"timestamp": 10 * i, "input_length": 600, "output_length": 3, "hash_ids": [7, 100 + i]} for i in range(3)]
    trace.write_text("\n".join(map(json.dumps, lines)))
    spec = spec_of(trace={"file": str(trace)}, prefix_cache=reuse, concurrency=None, max_model_len=2048, repeats=2)
    made = asked_by(spec, cells(spec))
    assert [what.distinct for what in made] == [reuse] * 2
    assert made[0].hash != made[1].hash


def test_a_cell_whose_prompts_can_t_be_made_fails_alone(spec_of: Callable[..., BenchSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(lengths=LENGTHS, repeats=2)
    asking, (first, second) = Asking(spec), cells(spec)
    asking.check([first, second])

    def no_further(*_: object) -> Asked:
        raise SpecError("no further distinct prompt")

    monkeypatch.setattr("workloads.inference.asking.asked", no_further)
    assert asking.what(second) == Failed("no_prompts", "no further distinct prompt")
    with pytest.raises(SpecError):
        Asking(spec).check([first])


def test_every_rate_of_a_search_asks_others(spec_of: Callable[..., BenchSpec]) -> None:
    spec = spec_of(lengths=LENGTHS, concurrency=None, prompts={"count": 268}, search={"min_duration_s": 1})
    (first,) = searches(spec)
    rates = [first.at(first.load.model_copy(update={"rate_rps": rate})) for rate in (1.0, 2.0, 300.0)]
    made = asked_by(spec, rates)
    assert [len(ids(what.prompts)) for what in made] == [268, 268, 300]
    assert len(set().union(*(ids(what.prompts) for what in made))) == 268 + 268 + 300


def test_few_of_many_cells_prompts_are_kept(spec_of: Callable[..., BenchSpec]) -> None:
    spec = spec_of(lengths=LENGTHS, concurrency=[1, 2], repeats=8)
    asking = Asking(spec)
    asking.check(cells(spec))
    hashes = [asking.what(plan).hash for plan in cells(spec)]
    assert len(set(hashes)) == 16
    assert len(asking._known) <= KEPT + 1
    assert [asking.what(plan).hash for plan in cells(spec)] == hashes
    assert asking.first.hash == hashes[0]


def test_engines_of_ours_ask_the_same_again(spec_of: Callable[..., BenchSpec]) -> None:
    spec = spec_of(engines=["echo"], url=None, lengths=LENGTHS, repeats=2)
    made = asked_by(spec, cells(spec))
    assert made[0].hash == made[1].hash
    assert made[0].warm_up is None


def test_an_endpoint_that_is_asked_distinct_prompts_can_be_compared(swept: Callable[..., Swept], endpoint: Callable[..., str]) -> None:
    done = swept(engines=["openai"], url=endpoint(), lengths=LENGTHS, repeats=2, arrivals={"rates_rps": [80]}, concurrency=[4])
    assert done.code == 0, done.said
    assert {c.gates.prefix_cache for c in done.cells} == {"distinct prompts"}
    assert not [flag for c in done.cells for flag in flags(c) if "prefix" in flag]
    asked_ids = {(c.setting, c.repeat): c.gates.prompt_hash for c in done.cells}
    assert len(set(asked_ids.values())) == 4
    open_loop = [c for c in done.cells if c.rate_rps]
    assert [c.gates.arrival_seed for c in open_loop] == [0, 1]
    due = [[r.scheduled_s for r in done.requests if (r.setting, r.repeat) == (c.setting, c.repeat)] for c in open_loop]
    gaps = [[b - a for a, b in pairwise(one)] for one in due]
    assert gaps[0] != pytest.approx(gaps[1]), "each repeat draws its own times"
    fine = [c.model_copy(update={"client": None}) for c in open_loop]
    assert refusal(fine, fine) is None


def test_a_cell_that_was_begun_before_a_kill_may_be_known(
    tmp_path: Path, swept: Callable[..., Swept], endpoint: Callable[..., str]
) -> None:
    import subprocess
    import sys

    done = swept(engines=["openai"], url=endpoint(), lengths=LENGTHS, repeats=3)
    ledger = done.folder / "cells.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:2]))  # as after a kill in the second cell
    again = subprocess.run(
        [sys.executable, "-m", "workloads.inference.bench", "--run", str(done.folder)], capture_output=True, text=True, timeout=100
    )
    assert again.returncode == 0, again.stderr
    found = Swept(done.folder, again).cells
    assert [c.gates.prefix_cache for c in found] == ["distinct prompts", "asked before", "distinct prompts"]
    assert any("a try that was cut short may have asked the same prompts" in flag for flag in flags(found[1]))
