"""`ncdemo bench compare`: ratios and intervals by hand, verdicts, and what is refused."""

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ncdemo.report.compare import Difference, Missing, Refused, Side, compare, read_side, table
from ncdemo.report.export import rows, write_cells
from ncdemo.report.fairness import flags
from ncdemo.report.intervals import paired_interval, student_t, welch_interval
from ncdemo.spec import SpecError
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import BenchResult, Cell, Client, Gates

GATES = Gates(
    prompt_hash="h", asked_tokens="64 exactly", temperature=0.0, precision="bf16", max_model_len=2048, memory_fraction=0.4,
    warmup_requests=2, prefix_cache="off", prefix_reuse=False, mode="server",
)  # fmt: skip


def cell(engine: str, repeat: int, speed: float, gates: Gates = GATES, **more) -> Cell:
    return Cell(
        engine=engine, model="m", setting="concurrency 8", concurrency=8, repeat=repeat, requests=10, failed=0, output_tokens_per_s=speed,
        gates=gates, **({"equal_output_tokens": True} | more),
    )  # fmt: skip


def side(engine: str, speeds: list[float], run: str = "r", **more) -> Side:
    return Side(run, engine, tuple(cell(engine, i, speed, **more) for i, speed in enumerate(speeds)))


def ratios(found: list) -> dict[str, Difference]:
    return {d.metric: d for d in found if isinstance(d, Difference)}


def test_students_t_is_the_tables() -> None:
    found = [student_t(freedom) for freedom in (1, 2, 5, 9, 30)]
    assert found == [pytest.approx(v, abs=1e-3) for v in (12.706, 4.303, 2.571, 2.262, 2.042)]


def test_a_paired_interval_by_hand() -> None:
    x, y = [1.0, 2.0, 3.0], [0.5, 1.6, 2.4]  # gaps 0.5, 0.4, 0.6: mean 0.5, variance 0.01
    middle, half = paired_interval(x, y)
    assert (middle, half) == (pytest.approx(0.5), pytest.approx(4.3027 * math.sqrt(0.01 / 3), rel=1e-3))
    assert paired_interval([1.0], [2.0]) == (-1.0, None)
    assert welch_interval([1.0, 1.0], [1.0, 1.0]) == (0.0, 0.0)


def test_drift_that_hits_both_alike_hides_nothing_in_one_run() -> None:
    drift = [1.0, 0.8, 0.6, 0.9, 0.7, 0.5]
    a, b = side("a", [105 * d for d in drift]), side("b", [100 * d for d in drift])
    speed = ratios(compare(a, b))["output_tokens_per_s"]
    assert (speed.ratio, speed.low, speed.high) == (pytest.approx(1.05),) * 3
    assert speed.verdict == "a is better"
    # The same figures of two runs are not paired, and then the drift is noise.
    (apart,) = ratios(compare(a, side("b", [100 * d for d in drift], run="other"))).values()
    assert apart.verdict == "no more than noise"


def test_lower_is_better_for_latency_and_few_repeats_establish_nothing() -> None:
    from ncdemo.spec.result_bench import Distribution

    def with_ttft(engine: str, ms: float, n: int) -> Side:
        cells = [
            cell(engine, i, 100.0 + i, ttft_s=Distribution(count=20, mean=ms, p50=ms * (1 + i / 100), min=ms, max=ms)) for i in range(n)
        ]
        return Side("r", engine, tuple(cells))

    found = ratios(compare(with_ttft("a", 10, 6), with_ttft("b", 20, 6)))
    assert (found["ttft_s p50"].ratio, found["ttft_s p50"].verdict) == (pytest.approx(0.5), "a is better")
    assert "ttft_s p99" not in found, "unbounded percentiles are not compared"
    few = ratios(compare(with_ttft("a", 10, 5), with_ttft("b", 20, 5)))
    assert few["ttft_s p50"].verdict == "not established: 5 of at least 6 repeats"


def test_open_loops_are_compared_by_when_a_request_was_due_too() -> None:
    from ncdemo.spec.result_bench import Distribution

    def waited(engine: str, ms: float, **load) -> Side:
        due = Distribution(count=20, mean=ms, p50=ms, min=ms, max=ms)
        cells = tuple(cell(engine, i, 100.0, ttft_from_schedule_s=due).model_copy(update=load) for i in range(6))
        return Side("r", engine, cells)

    rate = {"concurrency": None, "rate_rps": 4.0, "setting": "poisson 4 req/s"}
    found = {d.metric: d for d in compare(waited("a", 10, **rate), waited("b", 20, **rate)) if isinstance(d, Difference)}
    assert found["ttft_from_schedule_s p50"].ratio == pytest.approx(0.5)
    assert "ttft_from_schedule_s p50" not in {d.metric for d in compare(waited("a", 10), waited("b", 20)) if isinstance(d, Difference)}


@pytest.mark.parametrize(("late_s", "concurrency", "flagged"), [(0.051, None, True), (0.049, None, False), (9.0, 8, False)])
def test_an_open_loop_that_was_sent_late_is_flagged(late_s: float, concurrency: int | None, flagged: bool) -> None:
    client = Client(processes=1, cpu_share=0.1, events_per_s=1, headroom=0.9, max_lateness_s=late_s)
    said = flags(cell("a", 0, 1.0).model_copy(update={"client": client, "concurrency": concurrency}))
    words = f"requests were sent up to {late_s * 1e3:.0f} ms behind their schedule: the load was not the one asked for"
    assert said == ([words] if flagged else [])


def test_a_repeat_without_any_goodput_is_not_left_out() -> None:
    """Six good repeats of eight are no six repeats: two in which nothing met the objectives would vanish."""

    def with_goodput(engine: str, found: list[float]) -> Side:
        return Side("r", engine, tuple(cell(engine, i, 100.0, goodput_rps=one) for i, one in enumerate(found)))

    even = with_goodput("b", [4.0] * 8)
    assert "goodput_rps" in ratios(compare(with_goodput("a", [5.0, 5.1] * 4), even))
    some, none = with_goodput("a", [5.0, 5.1] * 3 + [0.0, 0.0]), with_goodput("b", [0.0] * 8)
    found = compare(some, none)
    assert "goodput_rps" not in ratios(found)
    missing = Missing("m", "8", "goodput_rps", "a had none in 2 of 8 repeats, b had none in 8 of 8 repeats")
    assert missing in found
    assert f"  goodput_rps                {missing.why}" in table(some, none, found).splitlines()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gates": GATES.model_copy(update={"precision": "fp32"})}, "precision differs: bf16 and fp32"),
        ({"gates": GATES.model_copy(update={"mode": "offline"})}, "mode differs: server and offline"),
        ({"gates": GATES.model_copy(update={"prefix_reuse": True})}, "prefix_reuse differs: False and True"),
        ({"gates": GATES.model_copy(update={"prompt_hash": "other"})}, "prompt_hash differs: h and other"),
        (
            {"gates": GATES.model_copy(update={"prefix_cache": "unknown"})},
            "b, repeat 0: whether a prefix cache answered is not known: ask distinct prompts (lengths, or a longer prompts.file)",
        ),
        (
            {"gates": GATES.model_copy(update={"prefix_cache": "on"})},
            "b, repeat 0: a prefix cache was on and could not be emptied before the cell: set prompts.distinct",
        ),
        (
            {"equal_output_tokens": False, "output_tokens": 96, "asked_output_tokens": 144},
            "b, repeat 0: output tokens differ from what was asked for: 96 instead of 144",
        ),
        ({"equal_prompt_tokens": False}, "b, repeat 0: the server counted other prompt tokens than it was sent"),
        ({"gates": None}, "a cell has no record of its fairness gates"),
        ({"token_agreement": 0.5}, "b, repeat 0: only 50.0 % of tokens agree with the first engine"),
        (
            {"client": Client(processes=1, cpu_share=0.9, events_per_s=1, headroom=0.1, max_lateness_s=0)},
            "b, repeat 0: the load generator itself was at 90 % of what it can do: it may be what was measured; "
            "set client_processes above 1, or run it where it has more cores",
        ),
    ],
)
def test_a_gate_that_fails_refuses_the_pair(changes: dict, why: str) -> None:
    assert compare(side("a", [1.0] * 6), side("b", [1.0] * 6, **changes)) == [Refused("m", "8", why)]


def test_an_emptied_cache_is_as_good_as_none() -> None:
    reset = GATES.model_copy(update={"prefix_cache": "reset"})
    assert "output_tokens_per_s" in ratios(compare(side("a", [1.0] * 6), side("b", [1.0] * 6, gates=reset)))


@pytest.mark.parametrize("field", ["prompt_hash", "arrival_seed"])
def test_each_repeat_may_ask_its_own_prompts_at_its_own_times(field: str) -> None:
    def drawn(engine: str, first: int) -> Side:
        of = [GATES.model_copy(update={field: value if field == "arrival_seed" else str(value)}) for value in range(first, first + 6)]
        return Side("r", engine, tuple(cell(engine, i, 1.0, gates=gates) for i, gates in enumerate(of)))

    assert "output_tokens_per_s" in ratios(compare(drawn("a", 0), drawn("b", 0)))
    assert compare(drawn("a", 0), drawn("b", 1)) == [Refused("m", "8", f"{field} differs: 0 and 1")]


def test_why_an_endpoints_prompts_differ_from_an_engines() -> None:
    distinct = GATES.model_copy(update={"prefix_cache": "distinct prompts", "prompt_hash": "other"})
    why = "prompt_hash differs: h and other; one side's were distinct: set prompts.distinct alike"
    assert compare(side("a", [1.0] * 6), side("openai", [1.0] * 6, gates=distinct)) == [Refused("m", "8", why)]


def test_one_endpoint_that_was_asked_the_same_twice_is_told() -> None:
    distinct = GATES.model_copy(update={"prefix_cache": "distinct prompts"})
    a, b = (replace(side("openai", [1.0] * 6, gates=distinct), run=run, url="http://one:8000") for run in "ab")
    note = "Both asked http://one:8000 the same prompts: unless it was started anew in between, the later may have found them in its prefix cache."
    assert note in table(a, b, compare(a, b)).splitlines()
    assert "Both asked" not in table(a, replace(b, url="http://other:8000"), compare(a, b))
    assert "Both asked" not in table(a, replace(b, run="a"), compare(a, b)), "one run asks each prompt once"
    others = side("openai", [1.0] * 6, gates=distinct.model_copy(update={"prompt_hash": "x"}))
    assert "Both asked" not in table(a, replace(others, run="b", url=a.url), [])


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(SpecError, match="share no model and load; measure both with one spec"):
        compare(side("a", [1.0]), Side("r", "b", (cell("b", 0, 1.0).model_copy(update={"setting": "poisson 2 req/s"}),)))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    cells = [cell(engine, i, speed * (1 + i / 1000)) for engine, speed in (("a", 200.0), ("b", 100.0)) for i in range(6)]
    result = BenchResult(cells=cells, prompt_tokens=1, prompt_hash="h", engine_versions={}, load_time_s={})
    record = RunRecord(kind="bench", run_id="r", name="r", status="finished", spec_hash="s", started_at="2026-11-26", bench=result)
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "result.json").write_text(record.model_dump_json())
    return folder


def test_sides_are_named_or_the_error_says_how(run: Path) -> None:
    assert read_side(run, "a").subject == "a"
    with pytest.raises(SpecError, match=r"holds a, b; say which as RUN:SUBJECT, e\.g\. .*r:a"):
        read_side(run, None)
    with pytest.raises(SpecError, match=r"r:c: no such subject; give one of: a, b"):
        read_side(run, "c")
    with pytest.raises(SpecError, match=r"No such file or directory; give the folder of a benchmark's run"):
        read_side(run / "no", None)


def test_the_command_says_it_in_text_and_json(run: Path) -> None:
    command = [sys.executable, "-m", "ncdemo", "bench", "compare", f"{run}:a", f"{run}:b"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "m, concurrency 8" in text
    assert "a/b 2.000 [2.000, 2.000]" in text
    assert "a is better" in text
    found = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert [one["kind"] for one in found] == ["agreement", "difference"]
    assert found[1]["ratio"] == pytest.approx(2.0)
    assert "  answers not compared: no requests of a and b are on record" in text


def test_cells_as_tables(run: Path, tmp_path: Path) -> None:
    write_cells(run, "csv", tmp_path / "cells.csv")
    table = list(csv.DictReader(io.StringIO((tmp_path / "cells.csv").read_text())))
    assert [float(row["output_tokens_per_s"]) for row in table] == [row["output_tokens_per_s"] for row in rows(run)]
    assert (table[0]["gates.precision"], table[0]["ttft_s"]) == ("bf16", ""), "not measured is empty"
    write_cells(run, "json", tmp_path / "new" / "cells.json")
    assert json.loads((tmp_path / "new" / "cells.json").read_text()) == rows(run)
    with pytest.raises(SpecError, match="--format parquet: needs a file; give -o FILE"):
        write_cells(run, "parquet", None)


def test_cells_as_parquet(run: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow comes with the train extra")
    write_cells(run, "parquet", tmp_path / "cells.parquet")
    assert parquet.read_table(tmp_path / "cells.parquet").to_pylist()[3]["repeat"] == 3
