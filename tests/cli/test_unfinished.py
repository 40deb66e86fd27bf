"""A benchmark that kill -9 ended: the page, the comparison and the dry run show what it finished, and say what it didn't."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ncdemo.cli.launch import unfinished
from ncdemo.report.show import number
from ncdemo.spec import BenchSpec, SpecError, dump_spec
from ncdemo.spec.ledger import LedgerEntry, read_ledger
from ncdemo.spec.result import RunRecord
from ncdemo.spec.run_folder import note_process

SPEC = {
    "engines": ["echo"], "concurrency": [1, 4], "prompts": {"count": 6}, "sampling": {"max_new_tokens": 5}, "repeats": 40,
    "telemetry": {"sample_hz": 0.0, "mlflow_uri": None}, "prices": {"vm_size": "Standard_NC40ads_H100_v5", "region": "eastus"},
}  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """80 cells were asked for; the process was killed when ten and some were finished."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    folder.mkdir()
    spec = BenchSpec.model_validate_json(json.dumps({**SPEC, "models": [{"name": str(tiny_model), "label": "tiny"}]}))
    (folder / "spec.yaml").write_text(dump_spec(spec))
    process = subprocess.Popen([sys.executable, "-m", "workloads.inference.bench", "--run", folder], stderr=subprocess.DEVNULL)
    ledger = folder / "cells.jsonl"
    while process.poll() is None and (not ledger.exists() or ledger.read_bytes().count(b"\n") < 11):
        pass
    process.kill()
    process.wait()
    assert 10 <= len(finished(folder)) < 80
    assert RunRecord.model_validate_json((folder / "result.json").read_text()).bench is None
    return folder


@pytest.fixture(scope="module")
def whole(killed: Path) -> Path:
    """The same, gone on with to its end."""
    folder = killed.with_name("whole")
    shutil.copytree(killed, folder)
    subprocess.run([sys.executable, "-m", "workloads.inference.bench", "--run", folder], check=True, capture_output=True, timeout=240)
    return folder


def finished(folder: Path) -> list[LedgerEntry]:
    return read_ledger(folder / "cells.jsonl").entries


def ncdemo(*words: object) -> str:
    return subprocess.run(
        [sys.executable, "-m", "ncdemo", *map(str, words)], capture_output=True, text=True, check=True, timeout=240
    ).stdout


def page(*runs: Path, out: Path) -> str:
    ncdemo("report", *runs, "-o", out)
    return out.read_text(encoding="utf-8")


def rows(html: str) -> list[list[str]]:
    """Return the rows of the table of cells."""
    table = html[html.index("Every cell: throughput and fairness") :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)]
    return [[re.sub("<[^>]+>", "", text).strip() for text in row] for row in found]


def test_the_page_of_a_killed_run_shows_its_finished_cells(killed: Path, tmp_path: Path) -> None:
    html = page(killed, out=tmp_path / "killed.html")
    cells = [entry.cell for entry in finished(killed)]
    assert f"<strong>This run is unfinished: it has {len(cells)} of 80 cells.</strong>" in html
    assert "energy, searches and the engines' starts" in html
    shown = sorted((row[1], row[2], row[5]) for row in rows(html))
    assert shown == sorted((c.load, str(c.repeat), number(c.output_tokens_per_s)) for c in cells)


def test_the_page_of_a_whole_run_says_nothing_of_it(whole: Path, tmp_path: Path) -> None:
    html = page(whole, out=tmp_path / "whole.html")
    assert "unfinished" not in html
    assert len(rows(html)) == 80


def test_a_killed_run_of_which_only_the_ledger_is_left(killed: Path, tmp_path: Path) -> None:
    rest = tmp_path / "rest"
    rest.mkdir()
    for name in ("cells.jsonl", "spec.yaml"):
        shutil.copy(killed / name, rest / name)
    html = page(rest, out=tmp_path / "rest.html")
    assert len(rows(html)) == len(finished(killed))
    (rest / "cells.jsonl").write_text((killed / "cells.jsonl").read_text().replace('{"key"', '{"kye"', 1))
    html = page(rest, out=tmp_path / "rest.html")
    assert "cells.jsonl cannot be read" in html
    assert "it has 0 of 80 cells" in html


def test_a_killed_run_that_asked_other_prompts_is_not_set_beside_silently(killed: Path, whole: Path, tmp_path: Path) -> None:
    note = "did not ask the same prompts"
    assert note not in page(killed, whole, out=tmp_path / "same.html")
    other = tmp_path / "other"
    shutil.copytree(killed, other)
    told = (killed / "cells.jsonl").read_text()
    (other / "cells.jsonl").write_text(told.replace(finished(killed)[0].cell.gates.prompt_hash, "ab" * 32))
    assert note in page(other, whole, out=tmp_path / "others.html")


def test_the_comparison_says_it_as_json_too(killed: Path, whole: Path) -> None:
    done = len(finished(killed))
    said = {"kind": "unfinished", "side": "a", "run": "killed", "finished": done, "planned": 80}
    found = json.loads(ncdemo("bench", "compare", killed, whole, "--json"))
    assert found[0] == said
    assert [one["kind"] for one in found].count("unfinished") == 1
    assert any(one["kind"] == "difference" for one in found)
    assert f"a: its run is unfinished, it has {done} of 80 cells; these are compared.\n" in ncdemo("bench", "compare", killed, whole)
    other_way = json.loads(ncdemo("bench", "compare", whole, killed, "--json"))
    assert other_way[0] == {**said, "side": "b"}
    assert "unfinished" not in ncdemo("bench", "compare", whole, whole, "--json")


def test_a_dry_run_that_goes_on_counts_the_rest_alone(killed: Path, whole: Path) -> None:
    entries = finished(killed)
    text = ncdemo("bench", "run", "-c", killed / "spec.yaml", "--resume", killed, "--dry-run")
    done, left = len(entries), 80 - len(entries)
    assert text.startswith(f"# 80 cells of 6 requests; {done} are finished in {killed} and are not measured again, {left} are left\n")
    marked = re.findall(r"^#   (.*) \(finished, took [\d.]+ s\)$", text, re.MULTILINE)
    assert marked == [entry.key for entry in entries], "in the order of measuring"
    assert len(re.findall(r"^#   .* \(other repeats took [\d.]+ s\)$", text, re.MULTILINE)) == left
    assert re.search(rf"^# the {left} cells that are left take about \d+ s, [\d.]+ USD of Standard_NC40ads_H100_v5", text, re.MULTILINE)
    assert f"--run {killed}" in text, "it starts in the same folder"
    assert finished(killed) == entries, "nothing was measured"
    refused = subprocess.run(
        [sys.executable, "-m", "ncdemo", "bench", "run", "-c", killed / "spec.yaml", "--set", "repeats=41", "--resume", killed, "--dry-run"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "was begun with another spec" in refused.stderr
    over = subprocess.run(
        [sys.executable, "-m", "ncdemo", "bench", "run", "-c", whole / "spec.yaml", "--resume", whole, "--dry-run"],
        capture_output=True,
        text=True,
    )
    assert (over.returncode, "this run is finished" in over.stderr) == (2, True)


def test_a_run_that_goes_on_is_not_begun_a_second_time(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "result.json").write_text('{"status": "running"}')
    with subprocess.Popen(["sleep", "60"]) as process:
        note_process(folder, process.pid)
        with pytest.raises(
            SpecError, match=rf"this run goes on \(process {process.pid}\); wait for its end, or end it with: kill {process.pid}"
        ):
            unfinished(folder)
        process.kill()
    assert unfinished(folder) == folder
