"""Sweeps in server mode against a real process that answers in canned streams: loads, faults, deaths, and what is recorded of them."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from ncdemo.report.fairness import flags
from ncdemo.spec import BenchSpec
from ncdemo.spec.result_bench import PromptRows
from ncdemo.spec.result_engine import EngineSample
from tests.inference.conftest import Swept
from workloads.inference.load.canned.faults import FAULTS


def test_loads_lengths_and_what_the_client_did(swept: Callable[..., Swept]) -> None:
    done = swept(arrivals={"rates_rps": [60], "process": "constant"}, lengths=[{"input_tokens": 20, "output_tokens": 5}], repeats=2)
    assert done.code == 0, done.said
    assert [(c.setting, c.repeat) for c in done.cells] == [
        ("concurrency 8, 20 to 5 tokens", 0), ("constant 60 req/s, 20 to 5 tokens", 0),
        ("concurrency 8, 20 to 5 tokens", 1), ("constant 60 req/s, 20 to 5 tokens", 1),
    ]  # fmt: skip
    assert {r.prompt_tokens for r in done.requests} == {20}
    for cell in done.cells:
        assert (cell.failed, cell.equal_output_tokens, cell.gates.prefix_cache, cell.gates.asked_tokens) == (0, True, "off", "5 exactly")
        gates = cell.gates
        assert (gates.tensor_parallel, gates.max_concurrency, gates.slo_ttft_s, gates.slo_tpot_s) == (1, 256, 2.0, 0.1)
        assert gates.arrival_seed is None, "neither a closed loop nor equal gaps are drawn"
        assert cell.client.ceiling_events_per_s > 0
        assert cell.client.headroom <= 1
    gaps = [r.scheduled_s for r in done.requests if r.setting.startswith("constant") and r.repeat == 0]
    assert gaps[-1] - gaps[0] == pytest.approx(23 / 60)
    assert (done.folder / "servers" / "echo-canned-auto-tp1" / "server.log").is_file()


def test_the_engines_own_count_is_beside_ours(swept: Callable[..., Swept]) -> None:
    done = swept(arrivals={"rates_rps": [30], "process": "constant"}, concurrency=[4], engine_metrics_every_s=0.1)
    assert done.code == 0, done.said
    closed, constant = done.cells
    for cell in (closed, constant):
        prompts = sum(r.prompt_tokens for r in done.requests if r.setting == cell.setting)
        assert (cell.counted.output_tokens, cell.counted.prompt_tokens) == (cell.output_tokens, prompts)
        assert not [flag for flag in flags(cell) if "count" in flag]
    assert constant.counted.looks >= 4, "24 requests at 30 a second take 0.8 s"
    assert constant.counted.running_max is not None
    told = [EngineSample.model_validate_json(line) for line in (done.folder / "engines.jsonl").read_text().splitlines()]
    assert len(told) >= 2 * 3 + constant.counted.looks, "before and after each cell, and the warm-up"
    window = [one for one in told if constant.start_s < one.time_s < constant.start_s + constant.window_s]
    assert len(window) == pytest.approx(constant.counted.looks, abs=1)


def test_a_trace_is_replayed_with_its_own_lengths(swept: Callable[..., Swept], tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = ["2023-11-16 18:17:03.0000000,12,3", "2023-11-16 18:17:03.2000000,900,4", "2023-11-16 18:17:03.4000000,15,5"]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    done = swept(concurrency=None, trace={"file": str(trace), "scale": 2.0})
    assert done.code == 0, done.said
    assert "1 of its first 3 requests don't fit in max_model_len = 512" in done.said
    first, second = done.requests
    assert [(r.prompt_tokens, r.output_tokens) for r in done.requests] == [(12, 3), (15, 5)], "900 tokens don't fit in max_model_len"
    assert second.scheduled_s - first.scheduled_s == pytest.approx(0.2)
    assert done.cells[0].rate_rps == pytest.approx(1 / 0.2), "of a trace too it is told"
    assert (done.cells[0].requests, done.cells[0].equal_output_tokens, done.cells[0].gates.asked_tokens) == (
        2,
        True,
        "the trace's own exactly",
    )


def test_a_trace_with_shared_beginnings_and_a_cache_that_can_t_be_emptied(
    swept: Callable[..., Swept], endpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows = [{"timestamp": 10 * i, "input_length": 1500, "output_length": 3, "hash_ids": [7, 8, 100 + i]} for i in range(3)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(map(json.dumps, rows)))
    changes = {"trace": {"file": str(trace)}, "prefix_cache": True, "max_model_len": 2048, "concurrency": None}
    done = swept(engines=["openai"], url=endpoint(), **changes)
    assert done.code == 0, done.said
    assert [(r.prompt_tokens, r.server_prompt_tokens, r.output_tokens) for r in done.requests] == [(1500, 1500, 3)] * 3
    assert (done.cells[0].gates.prefix_cache, done.record.bench.prompt_rows) == ("distinct prompts", None)


def test_a_chat_data_set_is_asked_and_its_broken_rows_counted(swept: Callable[..., Swept], tmp_path: Path) -> None:
    file = tmp_path / "sharegpt.json"
    ask = {"from": "human", "value": "Name a colour."}
    file.write_text(
        json.dumps([{"conversations": [ask, {"from": "gpt", "value": "Blue."}]}, {"conversations": []}, {"conversations": [ask]}])
    )
    done = swept(prompts={"file": str(file), "count": 4, "unusable_rows": "skip"})
    assert done.code == 0, done.said
    assert len({r.prompt_tokens for r in done.requests}) == 1
    assert done.record.bench.prompt_rows == PromptRows(read=3, used=2, skipped={"no_prompt": 1})
    assert done.cells[0].equal_prompt_tokens is True


def test_a_thousand_faults_lose_no_record(swept: Callable[..., Swept], endpoint: Callable[..., str]) -> None:
    kinds = [kind for kind in FAULTS if not kind.startswith("hang")]
    url = endpoint(*(f"--fault={kind}={0.9 / len(kinds):.4f}" for kind in kinds))
    done = swept(engines=["openai"], url=url, concurrency=[4, 32], repeats=3, prompts={"count": 220}, warmup_requests=0)
    assert done.code == 0, done.said
    assert len(done.requests) == 6 * 220
    assert len({(r.setting, r.repeat, r.index) for r in done.requests}) == 6 * 220, "each request once"
    for cell in done.cells:
        own = [r for r in done.requests if (r.setting, r.repeat) == (cell.setting, cell.repeat)]
        failed = [r for r in own if not r.ok]
        assert (cell.requests, cell.failed) == (220, len(failed)), "sent = finished + failed"
        assert all(r.ttft_s is None and r.error and r.failure for r in failed)
    counts = Counter(r.failure for r in done.requests if r.failure)
    assert set(counts) == {name for kind in kinds if (name := FAULTS[kind])}
    fine = sum(1 for kind in kinds if FAULTS[kind] is None)
    assert counts.total() > 1000 * (1 - fine / len(kinds)) * 0.9
    assert any("whether a prefix cache answered is not known" in flag for flag in flags(done.cells[0])), "the file has too few rows"


def test_an_endpoint_that_dies_fails_its_cells_and_the_sweep_ends_in_order(
    swept: Callable[..., Swept], endpoint: Callable[..., str]
) -> None:
    done = swept(engines=["openai"], url=endpoint("--exit-at", "40"), concurrency=[1], repeats=3, warmup_requests=0)
    assert done.code == 0, done.said
    assert [(c.failed, c.failure) for c in done.cells] == [(0, None), (8, None), (24, "engine_died")]
    assert {r.failure for r in done.requests if not r.ok} <= {"closed_early", "connect_refused"}
    assert done.record.status == "finished"


def test_an_endpoint_that_ends_answers_itself_is_flagged_with_the_counts(swept: Callable[..., Swept], endpoint: Callable[..., str]) -> None:
    done = swept(engines=["openai"], url=endpoint("--own-length", "4"))
    (cell,) = done.cells
    assert (cell.failed, cell.equal_output_tokens, cell.output_tokens, cell.asked_output_tokens) == (0, False, 24 * 4, 24 * 6)
    assert "output tokens differ from what was asked for: 96 instead of 144" in flags(cell)


def test_an_endpoint_that_knows_no_ignore_eos_says_what_to_do(swept: Callable[..., Swept], endpoint: Callable[..., str]) -> None:
    url = endpoint("--strict")
    done = swept(engines=["openai"], url=url)
    assert (done.record.status, done.cells[0].failure) == ("failed", "http_4xx")
    assert "Unrecognized request argument supplied: ignore_eos" in done.cells[0].error
    assert done.cells[0].error.endswith("this endpoint can't be made to give exact lengths: set sampling.ignore_eos: false")


def test_without_ignore_eos_a_strict_endpoint_answers(swept: Callable[..., Swept], endpoint: Callable[..., str]) -> None:
    (cell,) = swept(engines=["openai"], url=endpoint("--strict"), sampling={"max_new_tokens": 6, "ignore_eos": False}).cells
    assert (cell.failed, cell.equal_output_tokens, cell.gates.asked_tokens) == (0, None, "6 at most")
    assert cell.equal_prompt_tokens is True


def test_an_endpoint_that_takes_chats_alone(swept: Callable[..., Swept], endpoint: Callable[..., str]) -> None:
    url = endpoint("--chat-only")
    refused = swept(engines=["openai"], url=url, concurrency=[2])
    assert (refused.record.status, refused.cells[0].failure) == ("failed", "http_4xx")
    assert refused.cells[0].error.endswith("set endpoint: chat for an endpoint that has no /v1/completions")


def test_chats_are_asked_as_messages(swept: Callable[..., Swept], endpoint: Callable[..., str], tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]}))
    url = endpoint("--chat-only", "--log", str(tmp_path / "log"))
    done = swept(engines=["openai"], url=url, endpoint="chat", prompts={"file": str(chats), "count": 4}, concurrency=[2], warmup_requests=0)
    assert done.code == 0, done.said
    assert (done.cells[0].failed, done.cells[0].output_tokens) == (0, 4 * 6)
    # The canned server counts words, and has no template: five words arrived.
    assert {r.server_prompt_tokens for r in done.requests} == {5}
    assert done.cells[0].equal_prompt_tokens is False


def test_an_endpoint_that_is_not_there_is_one_clear_error(swept: Callable[..., Swept]) -> None:
    done = swept(engines=["openai"], url="http://127.0.0.1:9", concurrency=[1])
    assert done.code != 0
    assert done.record.status == "failed"
    assert "127.0.0.1:9" in done.record.reason


def test_an_engine_that_is_not_installed_is_a_recorded_failure(swept: Callable[..., Swept]) -> None:
    done = swept(engines=["lmdeploy", "echo"])
    assert done.code == 0, done.said
    cells = {c.engine: c for c in done.cells}
    assert cells["lmdeploy"].failure == "engine_missing"
    assert cells["echo"].failed == 0


def test_an_engine_without_a_server_form_is_refused() -> None:
    with pytest.raises(ValidationError, match="engines: transformers has no server, so it needs mode: offline; set it, or remove"):
        BenchSpec.model_validate_json('{"mode": "server", "engines": ["transformers", "echo"]}')


def test_a_search_tries_few_rates_and_each_is_a_cell(swept: Callable[..., Swept]) -> None:
    # Of 10 requests 0.95 could never be confident of 0.9.
    search = {"start_rps": 20, "attainment": 0.9, "confidence": 0.6, "max_runs": 3, "process": "constant", "min_duration_s": 0.05}
    done = swept(
        concurrency=None, search=search, slo={"ttft_s": 5.0, "tpot_s": 5.0}, prompts={"count": 10}, prices={"vm_size": "Standard_D2s_v5"}
    )
    assert done.code == 0, done.said
    assert [(c.rate_rps, c.searched) for c in done.cells] == [(20, True), (40, True), (80, True)]
    (found,) = done.record.bench.searches
    assert (found.max_goodput_rate_rps, found.above_rps, found.runs) == (80, None, 3)
    assert found.reason == "max_runs = 3 reached"
    assert all(c.usd_per_mtok > 0 for c in done.cells)


def test_a_capacity_is_found(swept: Callable[..., Swept], endpoint: Callable[..., str]) -> None:
    """3,000 tokens/s that all streams share are 300 answers/s of ten, and objectives of a minute are met at any rate."""
    search = {"start_rps": 220, "attainment": 0.9, "tolerance": 0.3, "process": "constant", "min_duration_s": 1.5}
    done = swept(
        engines=["openai"], url=endpoint("--capacity-tps", "3000"), concurrency=None, search=search, slo={"ttft_s": 60.0, "tpot_s": 60.0},
        prompts={"count": 30}, sampling={"max_new_tokens": 10},
    )  # fmt: skip
    assert done.code == 0, done.said
    (found,) = done.record.bench.searches
    # A machine that stops for a tenth of a second lets requests pile up as well: less may come out of it, but no more.
    assert 0.7 * 300 < (found.max_goodput_rate_rps or 0) < 1.1 * 300, found.reason
    assert [c.requests for c in done.cells] == [math.ceil(1.5 * c.rate_rps) for c in done.cells]
    assert len({c.gates.prompt_hash for c in done.cells}) == len(done.cells), "a cell's hash is of what it was asked"


@pytest.mark.parametrize("dies_at", [50, 40])
def test_a_server_that_dies_in_a_search_is_tried_once_more(swept: Callable[..., Swept], dies_at: int) -> None:
    """With the warm-up's 2, 20, 40 and 29 requests: at 50 it dies once, in the second cell; at 40 both times, and the third is fine."""
    search = {"start_rps": 20, "attainment": 0.5, "min_duration_s": 1, "max_runs": 2 if dies_at == 50 else 3, "process": "constant"}
    done = swept(
        concurrency=None, search=search, server_args={"echo": ["--exit-at", str(dies_at)]}, prompts={"count": 20}, max_model_len=256
    )
    assert done.code == 0, done.said
    (found,) = done.record.bench.searches
    assert done.cells[0].first_try is None
    assert "the server ended" in done.cells[1].first_try
    if dies_at == 50:
        assert [(c.rate_rps, c.error) for c in done.cells] == [(20, None), (40, None)]
        assert (found.max_goodput_rate_rps, found.above_rps) == (40, None), found.reason
        assert len([r for r in done.requests if "40 req/s" in r.setting]) == 40, "of the try that is told"
    else:
        assert [(c.rate_rps, c.failure) for c in done.cells] == [(20, None), (40, "engine_died"), (28.28, None)]
        assert (found.max_goodput_rate_rps, found.above_rps) == (28.28, 40), "twice, above a rate that was fine, is too much"
        assert found.reason.endswith(", twice")
