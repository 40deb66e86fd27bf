"""The dry run of a benchmark: what is known of time and cost is said, and so is what isn't."""

import json
import re
from pathlib import Path

import pytest

from ncdemo.cli.bench_plan import plan_text
from ncdemo.spec import BenchSpec, SpecError
from ncdemo.spec.ledger import LedgerEntry, LedgerHead, earlier
from ncdemo.spec.result_bench import Cell
from ncdemo.spec.sweep import cells, searches

UNKNOWN = "# how long closed loops, loading and searches take isn't known: no earlier run of this very spec is here"


def spec(**changes) -> BenchSpec:
    return BenchSpec.model_validate_json(json.dumps({"mode": "server", "engines": ["vllm"], "prompts": {"count": 300}, **changes}))


def ran(folder: Path, of: BenchSpec, walls: list[float | None]) -> None:
    """Leave the ledger of a run that finished so many cells; None: that cell failed."""
    folder.mkdir(parents=True)
    about = {"engine": "vllm", "model": "m", "repeat": 0, "requests": 1, "failed": 0}
    entries = [
        LedgerEntry(key=plan.key, cell=Cell(**about, error=None if wall else "died"), requests_bytes=0, end_s=1, wall_s=wall or 9999)
        for plan, wall in zip(cells(of), walls, strict=False)
    ]
    lines = [LedgerHead(spec_hash=of.spec_hash()), *entries]
    (folder / "cells.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))


def test_a_trace_sends_until_its_last_row_by_its_scale(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = ["2023-11-16 18:17:00.0,12,3", "2023-11-16 18:27:00.0,15,5", "2023-11-16 19:17:00.0,9000,5"]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    one = spec(trace={"file": str(trace), "scale": 2.0}, repeats=2, prices={"vm_size": "Standard_NC40ads_H100_v5"})
    text = plan_text(one, tmp_path / "none")
    assert text.startswith("# 2 cells of 2 requests\n"), "the third row doesn't fit in max_model_len"
    assert "trace x 2 | repeat 0 (at least 300 s)" in text
    assert "# open loops send for 600 s, " in text
    assert UNKNOWN in text
    with pytest.raises(SpecError, match=r"trace\.file = 'no\.csv': no such file"):
        plan_text(spec(trace={"file": "no.csv"}), tmp_path)


def test_a_search_has_an_upper_bound_of_cells(tmp_path: Path) -> None:
    text = plan_text(spec(search={"start_rps": 2.0, "max_runs": 5}, engines=["vllm", "sglang"], concurrency=[4]), tmp_path)
    assert text.count("a search of at most 5 cells (the first sends for 150 s, each other for 60 s at least): ") == 2
    assert "# at most 12 cells in all" in text


def test_what_a_run_that_goes_on_has_finished_is_not_counted(tmp_path: Path) -> None:
    loads = {"concurrency": [4], "arrivals": {"rates_rps": [2.0]}}
    one = spec(**loads, repeats=2, prices={"vm_size": "Standard_NC40ads_H100_v5", "region": "eastus"})
    ran(tmp_path / "runs" / "on", one, [None, 160.0])
    text = plan_text(one, tmp_path / "runs", tmp_path / "runs" / "on")
    assert "on and are not measured again, 2 are left" in text.splitlines()[0]
    assert "poisson 2 req/s | repeat 0 (finished, took 160.0 s)\n" in text
    assert "concurrency 4 | repeat 0 (finished, took 9999.0 s, it failed: died)\n" in text
    assert "poisson 2 req/s | repeat 1 (at least 150 s, other repeats took 160.0 s)\n" in text
    assert "concurrency 4 | repeat 1\n" in text, "one that failed says nothing of how long it takes"
    assert "# open loops send for 150 s, " in text
    assert re.search(
        r"# 1 of the 2 cells that are left take about 160 s, [\d.]+ USD of .* as you go, by their other repeats; loading", text
    )
    ran(tmp_path / "runs" / "earlier", one, [30.0, 100.0, 40.0, 100.0])
    text = plan_text(one, tmp_path / "runs", tmp_path / "runs" / "on")
    assert "concurrency 4 | repeat 1 (took 40.0 s before)" in text
    assert "# the 2 cells that are left take about 200 s, " in text
    assert f"by their other repeats and by {tmp_path / 'runs' / 'earlier'}; loading the engines comes on top" in text
    ran(tmp_path / "none" / "on", one, [])
    assert "how long the rest takes isn't known" in plan_text(one, tmp_path / "none", tmp_path / "none" / "on")


def test_a_search_that_goes_on_says_how_many_rates_it_has(tmp_path: Path) -> None:
    one = spec(search={"start_rps": 2.0, "max_runs": 5}, concurrency=[4])
    ran(tmp_path / "on", one, [12.0])
    (first,) = searches(one)
    about = {"engine": "vllm", "model": first.subject.model.shown, "repeat": 0, "requests": 1, "failed": 0, "searched": True}
    with (tmp_path / "on" / "cells.jsonl").open("a") as ledger:
        for rate in (2.0, 4.0):
            plan = first.at(first.load.model_copy(update={"rate_rps": rate}))
            entry = LedgerEntry(key=plan.key, cell=Cell(**about, rate_rps=rate), requests_bytes=0, end_s=1, wall_s=60)
            ledger.write(entry.model_dump_json() + "\n")
    text = plan_text(one, tmp_path, tmp_path / "on")
    assert "a search of at most 5 cells (2 of them finished, each other sends for 60 s at least): vllm" in text
    assert "# at most 6 cells in all, 3 of them finished" in text


def test_an_earlier_run_of_the_same_spec_says_how_long_it_took(tmp_path: Path) -> None:
    one, other = spec(concurrency=[4, 8, 16]), spec(concurrency=[4, 8, 16], repeats=2)
    ran(tmp_path / "long", one, [12.0, 30.0, None])
    ran(tmp_path / "short", one, [99.0])
    ran(tmp_path / "other", other, [1.0, 1.0, 1.0])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "cells.jsonl").write_text("{\n{\n")
    found = earlier(one.spec_hash(), tmp_path)
    assert (found.folder.name, sorted(found.wall_s.values())) == ("long", [12.0, 30.0]), "the most cells, without the failed one"
    text = plan_text(one, tmp_path)
    assert "concurrency 8 | repeat 0 (took 30.0 s before)" in text
    assert "long took 42 s for 2 of these 3 cells; loading the engines came on top" in text
    assert UNKNOWN not in text
