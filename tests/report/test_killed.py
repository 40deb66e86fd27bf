"""Runs that did not end well: everything readable is shown, and what is missing is said."""

import json
import re
from pathlib import Path

import pytest

from ncdemo.report import write_report
from ncdemo.spec.result import RunRecord


def text_of(runs: list[Path], tmp_path: Path) -> str:
    html = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<(style|svg).*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL))


def tear(file: Path) -> None:
    file.write_text(file.read_text()[:-40])


def test_killed_training(train_run, tmp_path):
    run = train_run()
    (run / "result.json").unlink()
    tear(run / "steps.jsonl")
    tear(run / "samples.jsonl")
    text = text_of([run], tmp_path)
    assert "? unknown" in text
    assert "No readable result.json: the run was killed before it could say how it ended." in text
    assert "result.json is absent." in text
    assert "steps.jsonl: the last line (line 60) is torn" in text
    assert "samples.jsonl: the last line" in text
    assert "of the 59 steps it took" in text
    assert "0.0 % → not measured" in text


def test_still_running(train_run, tmp_path):
    text = text_of([train_run(status="running", train=None, duration_s=None)], tmp_path)
    assert "… running" in text
    assert "The record still says running" in text


def test_failed_run_says_why(train_run, tmp_path):
    run = train_run(status="failed", reason="OutOfMemoryError: lower train.micro_batch_size", train=None)
    for name in ("steps.jsonl", "evals.jsonl", "samples.jsonl"):
        (run / name).unlink()
    text = text_of([run], tmp_path)
    assert "✕ failed" in text
    assert "OutOfMemoryError: lower train.micro_batch_size" in text
    assert "steps.jsonl is absent." in text
    assert "samples.jsonl is absent." in text
    assert "The machine was not sampled." in text
    assert "No steps and no evaluations were recorded." in text


def test_interrupted_benchmark_keeps_its_requests(bench_run, tmp_path):
    run = bench_run(status="interrupted", reason="stopped by SIGTERM", bench=None)
    tear(run / "requests.jsonl")
    text = text_of([run], tmp_path)
    assert "! interrupted" in text
    assert "stopped by SIGTERM" in text
    assert "No cell was summed up: the run ended before its record was complete." in text
    assert "This run is unfinished: it has 0 of 8 cells." in text
    assert "concurrency 8: share of requests" in text


def test_stopped_benchmark_says_how_many_cells_it_has(bench_run, tmp_path):
    whole = RunRecord.model_validate_json((bench_run("whole") / "result.json").read_text()).bench
    run = bench_run(status="interrupted", reason="stopped by SIGTERM", bench=whole.model_copy(update={"cells": whole.cells[:3]}))
    assert "This run is unfinished: it has 3 of 8 cells." in text_of([run], tmp_path)
    assert "This run is unfinished" not in text_of([bench_run("failed", status="failed", reason="no cell could be measured")], tmp_path)


def test_broken_line_in_the_middle_costs_that_line_only(train_run, tmp_path):
    run = train_run()
    lines = (run / "steps.jsonl").read_text().splitlines()
    lines[10], lines[20] = '{"step": 11, "end', "[1, 2]"
    (run / "steps.jsonl").write_text("\n".join(lines) + "\n")
    assert "steps.jsonl: 2 lines are not JSON records (the first is line 11); they are left out." in text_of([run], tmp_path)


def test_diverged_run(train_run, tmp_path):
    run = train_run()
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    for step in steps[40:]:
        step["loss"] = None if step["step"] % 2 else float("nan")
        step["grad_norm"] = float("inf")
    (run / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    record = json.loads((run / "result.json").read_text())
    record["train"]["after"]["perplexity"] = None
    (run / "result.json").write_text(json.dumps(record))
    text = text_of([run], tmp_path)
    assert "20 of 60 steps have no finite loss, the first at step 41." in text
    assert "result.json: train.after.perplexity: Input should be a valid number" in text
    assert "2.48 → not measured" in text
    assert "134,515,008" in text


def test_no_step_has_a_loss(train_run, tmp_path):
    run = train_run()
    steps = [json.loads(line) | {"loss": None, "grad_norm": None} for line in (run / "steps.jsonl").read_text().splitlines()]
    (run / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    assert "60 of 60 steps have no finite loss" in text_of([run], tmp_path)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "result.json is not whole JSON."),
        ('{"schema_version": 99}', "result.json has schema version 99; this ncdemo reads 1: use the one that wrote it."),
        ('{"kind": "train", "run_id": "r", "name": "n"}', "result.json: status: Field required"),
    ],
)
def test_unreadable_record(train_run, tmp_path, record, said):
    run = train_run()
    (run / "result.json").write_text(record)
    assert said in text_of([run], tmp_path)


def test_key_of_a_newer_ncdemo_costs_that_key_only(train_run, tmp_path):
    run = train_run()
    record = json.loads((run / "result.json").read_text())
    record["train"]["new_figure"] = 7
    (run / "result.json").write_text(json.dumps(record))
    text = text_of([run], tmp_path)
    assert "result.json: train.new_figure: Extra inputs are not permitted; the value is left out." in text
    assert "0.0 % → 71.9 %" in text


def test_requests_that_lack_a_field(bench_run, tmp_path):
    run = bench_run()
    with (run / "requests.jsonl").open("a") as file:
        file.write('{"engine": "vllm"}\n')
    assert "requests.jsonl: 1 records lack what a request needs" in text_of([run], tmp_path)


@pytest.mark.parametrize("absent", [False, True])
def test_gpu_that_vanished(train_run, tmp_path, absent):
    run = train_run(gpus=2, lost=1)
    if absent:
        samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
        for sample in samples:
            sample["gpus"] = [gpu for gpu in sample["gpus"] if not gpu["error"]]
        (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    text = text_of([run], tmp_path)
    why = "it is absent from the samples from then on" if absent else "NVML says: GPU is lost"
    assert re.search(rf"GPU 1 stopped answering at [\d.]+ s: {why}\.", text)


def test_folder_with_a_spec_only(tmp_path):
    run = tmp_path / "bare"
    run.mkdir()
    (run / "spec.yaml").write_text("kind: [\n")
    text = text_of([run], tmp_path)
    assert "spec.yaml is not valid YAML." in text
    assert "kind unknown" in text
    assert "environment.json is absent." in text
    assert "The git commit was not recorded." in text
