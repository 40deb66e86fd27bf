"""Searching the highest rate that meets the objectives: against known capacities, simulated and served, and as told by hand."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import NormalDist

import pytest
from pydantic import ValidationError

from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.bench import Prompts, Slo
from ncdemo.spec.ledger import read_ledger
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell, RequestRecord, SearchResult
from ncdemo.spec.sweep import PlannedCell, cells, requests, searches
from ncdemo.spec.traffic import Load, Search
from workloads.inference.asked import Asked
from workloads.inference.frameworks.base import Answer
from workloads.inference.ledger import Ledger
from workloads.inference.metrics import cell, request_record, wilson_low
from workloads.inference.search import Hunt, Verdict, judge, pursue
from workloads.inference.served import when
from workloads.inference.starts import Starts
from workloads.run import Run

GOOD, BAD = Verdict(True), Verdict(False, "70.0 % of the requests met the objectives")
TOKENS = 64


def hunted(search: Search, capacity_rps: float) -> tuple[Hunt, list[float]]:
    """Search a server of which a known capacity meets the objectives."""
    hunt, tried = Hunt(search), []
    while (rate := hunt.next_rate()) is not None:
        tried.append(rate)
        hunt.tell(rate, GOOD if rate <= capacity_rps else BAD)
    return hunt, tried


def served(capacity_rps: float, batch: int, rate_rps: float, count: int) -> Cell:
    """Return a cell of a simulated engine: its requests share capacity_rps x TOKENS tokens/s, at most `batch` at once, the others wait."""
    plan = next(iter(searches(BenchSpec.model_validate_json(SPEC)))).at(Load(kind="poisson", rate_rps=rate_rps, search=True))
    offsets = deque(enumerate(when(Asked([None] * count, [None] * count, [TOKENS] * count), plan.load, 0).offsets_s))
    now, given = 0.0, 0.0  # tokens that each active request was given since the start
    waiting: deque[tuple[int, float]] = deque()
    active: deque[tuple[int, float, float]] = deque()  # index, sent, given at its beginning; all want as much, so the first ends first
    firsts: deque[tuple[int, float]] = deque()
    first_s: dict[int, float] = {}
    records = []
    while offsets or active:
        pace = capacity_rps * TOKENS / len(active) if active else 0.0
        ends = now + (active[0][2] + TOKENS - given) / pace if active else float("inf")
        tells = now + (firsts[0][1] + 1 - given) / pace if firsts else float("inf")
        comes = offsets[0][1] if offsets else float("inf")
        then = min(ends, tells, comes)
        given, now = given + (then - now) * pace, then
        if then == comes:
            waiting.append(offsets.popleft())
        elif then == tells:
            first_s[firsts.popleft()[0]] = now
        else:
            index, sent, _ = active.popleft()
            stamps = [round(at * 1e9) for at in (sent, first_s[index], now)]
            answer = Answer(index, stamps[0], stamps[0], stamps[1:], [1, TOKENS - 1])
            records.append(request_record(answer, plan, prompt_tokens=1, zero_ns=0, text=None))
        while waiting and len(active) < batch:
            index, sent = waiting.popleft()
            active.append((index, sent, given))
            firsts.append((index, given))
    return cell(records, plan, Slo(), expected_tokens=None)


SPEC = json.dumps({"mode": "server", "engines": ["echo"], "search": {}, "prompts": {"count": 268}})


def simulated(search: Search, capacity_rps: float, batch: int, count: int = 268) -> SearchResult:
    """Search a simulated engine."""
    spec = BenchSpec.model_validate_json(SPEC).model_copy(update={"search": search, "prompts": Prompts(count=count)})
    (first,) = searches(spec)

    def cell_at(rate: float) -> Cell:
        return served(capacity_rps, batch, rate, requests(spec, first.at(first.load.model_copy(update={"rate_rps": rate}))))

    return pursue(search, cell_at).result(first)


@pytest.mark.parametrize(
    ("capacity", "batch", "changes"),
    [
        (78.0, 256, {}),
        (78.0, 10**6, {}),
        (78.0, 10**6, {"start_rps": 300.0}),
        (78.0, 256, {"min_duration_s": 0.1}),  # 268 requests at each rate: nothing but what piles up tells
        (20.0, 256, {}),
    ],
)
def test_a_simulated_engine_is_told_its_own_capacity(capacity: float, batch: int, changes: dict) -> None:
    """By the objectives alone the second and third are told 430 req/s: of 268 requests all but a few are answered as one batch."""
    search = Search(**({"start_rps": 8.0, "tolerance": 0.05, "max_runs": 20} | changes))
    found = simulated(search, capacity, batch)
    assert found.max_goodput_rate_rps == pytest.approx(capacity, rel=0.07), found.reason
    assert found.above_rps <= found.max_goodput_rate_rps * 1.05


def measured(**changes) -> Cell:
    fields = {"engine": "e", "model": "m", "repeat": 0, "requests": 601, "failed": 0, "rate_rps": 10.0, "slo_attainment": 1.0}
    return Cell(**(fields | {"sends_s": 60.0, "lag": 0.0, "lag_noise": 0.01, "least_e2e_s": 2.0} | changes))


@pytest.mark.parametrize(
    ("changes", "met", "why", "broke"),
    [
        ({}, True, "", False),
        ({"slo_attainment": 0.9}, False, "90.0 % of the requests met the objectives", False),
        ({"lag": 0.125}, False, "requests piled up: 12.5 % of those sent", False),
        ({"lag": 0.125, "lag_noise": 0.2}, True, "", False),
        ({"lag": -0.5}, True, "", False),
        ({"least_e2e_s": 30.0}, None, "60 s of sends are too short for answers of 30 s; set search.min_duration_s to 90", False),
        ({"sends_s": 75.0}, None, "the load generator sent but 8 req/s; give it more cores", False),
        ({"slo_attainment": None, "error": "HTTP 429", "failure": "http_429"}, False, "HTTP 429", False),
        ({"slo_attainment": None, "error": "out of memory", "failure": "out_of_memory"}, None, "out of memory", False),
        ({"slo_attainment": None, "error": "exit 9", "failure": "engine_died", "first_try": "exit 9"}, None, "exit 9, twice", True),
        ({"sends_s": None}, None, "its cell was not measured", False),
    ],
)
def test_what_a_cell_shows(changes: dict, met: bool | None, why: str, broke: bool) -> None:
    assert judge(measured(**changes), Search()) == Verdict(met, why, broke)


def test_an_engine_that_breaks_twice_is_too_much_only_above_a_rate_that_passed() -> None:
    broke = judge(measured(slo_attainment=None, error="exit 9", failure="engine_died", first_try="exit 9"), Search())
    hunt = Hunt(Search())
    hunt.tell(1.0, broke)
    assert hunt.next_rate() is None, "it may break at any rate"
    hunt = Hunt(Search())
    hunt.tell(1.0, GOOD)
    hunt.tell(2.0, broke)
    (first,) = searches(BenchSpec.model_validate_json(SPEC))
    assert (hunt.next_rate(), hunt.result(first).above_rps) == (1.414, 2.0)


def test_a_cell_that_shows_nothing_ends_the_search() -> None:
    (first,) = searches(BenchSpec.model_validate_json(SPEC))
    hunt = Hunt(Search())
    hunt.tell(1.0, GOOD)
    hunt.tell(2.0, judge(measured(least_e2e_s=30.0), Search()))
    found = hunt.result(first)
    assert (hunt.next_rate(), found.max_goodput_rate_rps, found.above_rps) == (None, 1.0, None)
    assert found.reason == "at 2 req/s 60 s of sends are too short for answers of 30 s; set search.min_duration_s to 90"


def test_a_rate_is_sent_for_its_time_and_why_the_next_failed_is_told() -> None:
    spec = BenchSpec.model_validate_json(SPEC)
    (first,) = searches(spec)
    counts = [requests(spec, first.at(Load(kind="poisson", rate_rps=rate, search=True))) for rate in (1.0, 4.0, 4.5, 100.0)]
    assert counts == [268, 268, 270, 6000]
    assert requests(spec, PlannedCell(first.subject, Load(kind="poisson", rate_rps=100.0), None, 0)) == 268, "no cell of a search"
    hunt, _ = hunted(Search(tolerance=0.1, max_runs=20), 3.3)
    assert hunt.result(first).reason.endswith("at 3.363 req/s 70.0 % of the requests met the objectives")


@pytest.mark.parametrize("capacity", [0.11, 1.0, 3.3, 57.0])
def test_it_ends_within_the_tolerance_in_few_runs(capacity: float) -> None:
    hunt, tried = hunted(Search(tolerance=0.1, max_runs=20), capacity)
    assert hunt.bracketed
    assert hunt.best <= capacity <= hunt.best * 1.11
    assert len(tried) <= 13
    assert len(set(tried)) == len(tried), "no rate twice"


def test_what_it_says_when_nothing_passes_or_the_runs_are_spent() -> None:
    hunt, tried = hunted(Search(max_runs=4), 1e-9)
    assert (hunt.best, tried) == (None, [1.0, 0.5, 0.25, 0.125])
    hunt, tried = hunted(Search(max_runs=3), 1e9)
    assert (hunt.best, tried, hunt.bracketed) == (4.0, [1.0, 2.0, 4.0], False)


def test_a_cell_that_could_not_be_measured_did_not_pass() -> None:
    hunt = Hunt(Search())
    hunt.tell(1.0, BAD)
    assert (hunt.best, hunt.next_rate()) == (None, 0.5)


class Lab:
    """Cells by rate as a ledger keeps them, in JSON; `measure` makes those that it lacks."""

    def __init__(self, measure: Callable[[float], Cell], lines: Sequence[str] = ()) -> None:
        self._measure, self.lines, self.asked, self.measured = measure, list(lines), [], []

    def __call__(self, rate: float) -> Cell:
        self.asked.append(rate)
        known = {cell.rate_rps: cell for cell in map(Cell.model_validate_json, self.lines)}
        if rate in known:
            return known[rate]
        self.measured.append(rate)
        cell = self._measure(rate)
        self.lines.append(cell.model_dump_json())
        return cell


def noisy(seed: int, capacity_rps: float) -> Callable[[float], Cell]:
    """Cells of a server near whose capacity chance decides, which also fails now and then, or shows nothing."""
    rng = Random(seed)

    def measure(rate: float) -> Cell:
        if (luck := rng.random()) < 0.05:
            return measured(rate_rps=rate, sends_s=None, slo_attainment=None, error="the server ended (exit 9)")
        if luck < 0.08:
            return measured(rate_rps=rate, requests=round(rate * 60) + 1, least_e2e_s=30.0)
        share = min(1.0, capacity_rps * rng.uniform(0.8, 1.25) / rate)
        lag = max(0.0, 1 / 3 - share / 3) * rng.uniform(0.5, 1.5)
        return measured(rate_rps=rate, requests=round(rate * 60) + 1, slo_attainment=share, lag=lag)

    return measure


@pytest.mark.parametrize("seed", range(40))
def test_killed_after_any_cell_it_goes_on_as_if_it_had_not_been(seed: int) -> None:
    """Told the cells that were recorded until then, it asks for the very rates of the undisturbed search, and measures no cell again."""
    search, (first,) = Search(tolerance=0.02, max_runs=15, start_rps=1.3), searches(BenchSpec.model_validate_json(SPEC))
    whole = Lab(noisy(seed, 0.2 * 1.3 ** (seed % 20)))
    undisturbed = pursue(search, whole).result(first)
    outcomes = {cell.rate_rps: cell for cell in map(Cell.model_validate_json, whole.lines)}
    for killed_after in range(len(whole.lines) + 1):
        resumed = Lab(outcomes.__getitem__, whole.lines[:killed_after])
        assert pursue(search, resumed).result(first) == undisturbed
        assert resumed.asked == whole.asked
        assert resumed.measured == whole.measured[killed_after:]


def test_a_search_that_is_killed_and_killed_again_measures_no_rate_twice(tmp_path: Path, tiny_model: Path) -> None:
    """SIGKILL in the midst of a cell of the first search, then of the second, whose first is then only replayed."""
    spec = BenchSpec.model_validate_json(json.dumps({
        "mode": "server", "engines": ["echo"], "precision": ["fp32", "bf16"], "memory_fraction": 0.6, "prompts": {"count": 8},
        "sampling": {"max_new_tokens": 6}, "max_model_len": 512, "warmup_requests": 1, "client_processes": 1,
        "telemetry": {"sample_hz": 0.0, "mlflow_uri": None}, "models": [{"name": str(tiny_model), "label": "canned"}],
        "server_args": {"echo": ["--capacity-tps", "240"]}, "slo": {"ttft_s": 0.3},
        "search": {"start_rps": 20, "attainment": 0.5, "min_duration_s": 0.6, "max_runs": 5, "process": "constant"},
    }))  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    ledger, command = folder / "cells.jsonl", [sys.executable, "-m", "workloads.inference.bench", "--run", str(folder)]
    recorded: list[str] = []
    for least in (2, spec.search.max_runs + 1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 200
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < 1 + least:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert ledger.read_text().splitlines()[: len(recorded)] == recorded
        recorded = ledger.read_text().splitlines()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, "NCDEMO_PROGRESS": "1"})
    assert done.returncode == 0, done.stderr
    assert f"going on: {len(recorded) - 1} cells are finished" in done.stderr
    assert ledger.read_text().splitlines()[: len(recorded)] == recorded, "what was recorded stays as it was"
    entries = read_ledger(ledger).entries
    assert len({entry.key for entry in entries}) == len(entries)
    requests = [RequestRecord.model_validate_json(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert len({(r.variant, r.setting, r.index) for r in requests}) == len(requests) == sum(entry.cell.requests for entry in entries)
    result = RunRecord.model_validate_json((folder / "result.json").read_text()).bench
    for first, found in zip(searches(spec), result.searches, strict=True):
        mine = [entry.cell for entry in entries if entry.cell.variant == first.subject.variant]
        replayed = Lab(lambda rate: pytest.fail(f"{rate} was not measured"), [cell.model_dump_json() for cell in mine])
        assert pursue(spec.search, replayed).result(first) == found
        assert replayed.asked == [cell.rate_rps for cell in mine], "the rates of a search that nobody disturbed"
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(m["done"] <= m["total"] for m in told)
    assert (told[0]["total"], told[-1]["total"]) == (10, len(entries))
    assert told[-1]["done"] == len(entries)


def test_a_resumed_search_compares_answers_with_those_before(tmp_path: Path) -> None:
    spec = BenchSpec.model_validate_json(json.dumps({**json.loads(SPEC), "precision": ["fp32", "bf16"]}))
    first, second = searches(spec)
    run = Run(tmp_path / "run", spec)
    ledger = Ledger(run.folder, spec.spec_hash())
    answer = Answer(0, 0, 0, [1], [3], [7, 8, 9])
    about = {"engine": "echo", "model": first.subject.model.shown, "variant": first.subject.variant, "setting": first.setting}
    records = [request_record(answer, first, prompt_tokens=1, zero_ns=0, text=None)]
    ledger.commit(first.key, measured(**about, searched=True), records, 1.0)
    ledger.close()
    again = Answer(0, 0, 0, [1], [3], [7, 1, 2])
    found = Starts(cells(spec), Ledger(run.folder, spec.spec_hash())).agreements(
        second, [request_record(again, second, prompt_tokens=1, zero_ns=0, text=None)]
    )
    assert found == {"echo fp32": pytest.approx(1 / 3)}


def test_the_least_requests_are_what_wilsons_bound_needs() -> None:
    search = Search(attainment=0.99, confidence=0.95)
    n = search.least_requests
    assert n == 268
    assert wilson_low(n, n) >= 0.99 > wilson_low(n - 2, n - 2)
    assert NormalDist().inv_cdf(0.95) == pytest.approx(1.6449, abs=1e-4)


def test_too_few_requests_are_refused_with_the_number() -> None:
    with pytest.raises(ValidationError, match=r"16 requests can't show 0\.99 with confidence 0\.95.*prompts\.count to at least 268"):
        BenchSpec.model_validate_json(json.dumps({"mode": "server", "search": {}}))
