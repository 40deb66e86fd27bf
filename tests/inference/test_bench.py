"""The benchmark as a process: its run directory, its failures, and what it says of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import RequestRecord

SPEC = {
    "engines": ["echo"],
    "concurrency": [1, 4],
    "prompts": {"count": 6},
    "sampling": {"max_new_tokens": 5},
    "repeats": 2,
    "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
}


def bench(tmp_path: Path, tiny_model: Path, **changes) -> tuple[subprocess.CompletedProcess, Path]:
    spec = BenchSpec.model_validate_json(json.dumps({**SPEC, "models": [{"name": str(tiny_model), "label": "tiny"}], **changes}))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    done = subprocess.run(
        [sys.executable, "-m", "workloads.inference.bench", "--run", str(folder)], capture_output=True, text=True, timeout=120
    )
    return done, folder


def test_a_sweep_leaves_every_request_and_cell(tmp_path: Path, tiny_model: Path) -> None:
    done, folder = bench(tmp_path, tiny_model)
    assert done.returncode == 0, done.stderr
    result = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert result.status == "finished"
    requests = [RequestRecord.model_validate_json(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert len(requests) == 2 * 2 * 6
    assert [(c.concurrency, c.repeat) for c in result.bench.cells] == [(1, 0), (4, 0), (1, 1), (4, 1)]
    for cell in result.bench.cells:
        own = [r for r in requests if (r.concurrency, r.repeat) == (cell.concurrency, cell.repeat)]
        assert (cell.requests, cell.failed, cell.equal_output_tokens, cell.token_agreement) == (6, 0, True, None), "nobody to agree with"
        window = max(r.chunk_s[-1] for r in own) - min(r.sent_s for r in own)
        assert cell.output_tokens_per_s == pytest.approx(30 / window)
    assert json.loads((folder / "environment.json").read_text())


def test_an_engine_that_cannot_load_is_a_recorded_failure_and_the_sweep_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    done, folder = bench(tmp_path, broken, engines=["transformers", "echo"], concurrency=[1], repeats=1)
    assert done.returncode == 0, done.stderr
    cells = {c.engine: c for c in RunRecord.model_validate_json((folder / "result.json").read_text()).bench.cells}
    assert cells["transformers"].failed == 6
    assert cells["transformers"].error
    assert cells["transformers"].failure == "load_failed"
    assert cells["transformers"].output_tokens_per_s is None
    assert cells["echo"].failed == 0


def test_an_engine_killed_in_the_middle_is_a_recorded_failure(tiny_model: Path) -> None:
    from ncdemo.spec.traffic import Load
    from workloads.inference.asked import Asked
    from workloads.inference.frameworks.base import Params, Prompt, Settings
    from workloads.inference.subject import Failed, Worker

    with Worker("echo", str(tiny_model), Settings("fp32", 128, 0.4, 1), 60) as worker:
        assert worker.failed is None
        worker._process.kill()
        worker._process.wait()
        answers = worker.measure(Asked([Prompt(0, (1, 2))], [None], [4]), Load(kind="closed", concurrency=1), Params(1, 4, True, 0.0, 0))
    assert answers == Failed("engine_died", "the engine's process ended (exit -9); its last words are in the log")


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    done, folder = bench(tmp_path, tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("Error: model.name = ")
    assert "Traceback" not in done.stderr
    assert RunRecord.model_validate_json((folder / "result.json").read_text()).status == "failed"


def test_a_sweep_killed_and_resumed_has_the_cells_of_an_undisturbed_one(tmp_path: Path, tiny_model: Path) -> None:
    spec = BenchSpec.model_validate_json(json.dumps({**SPEC, "repeats": 40, "models": [{"name": str(tiny_model), "label": "tiny"}]}))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    command = [sys.executable, "-m", "workloads.inference.bench", "--run", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ledger = folder / "cells.jsonl"
    while process.poll() is None and (not ledger.exists() or ledger.read_bytes().count(b"\n") < 10):
        pass
    process.kill()
    process.wait()
    killed = ledger.read_bytes().count(b"\n") - 1
    assert 0 < killed < 80
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cells = RunRecord.model_validate_json((folder / "result.json").read_text()).bench.cells
    assert [(c.concurrency, c.repeat) for c in cells] == [(n, repeat) for repeat in range(40) for n in (1, 4)]
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    keys = [(r["concurrency"], r["repeat"], r["index"]) for r in lines]
    assert len(keys) == len(set(keys)) == 80 * 6


def test_a_model_that_is_not_there_fails_its_own_cells_and_the_sweep_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    gone = {"name": str(tmp_path / "gone"), "label": "gone"}
    done, folder = bench(tmp_path, tiny_model, models=[gone, {"name": str(tiny_model), "label": "tiny"}], concurrency=[1])
    assert done.returncode == 0, done.stderr
    result = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert [(c.model, c.failure, c.failed) for c in result.bench.cells] == [("gone", "model_missing", 6)] * 2 + [("tiny", None, 0)] * 2
    assert str(tmp_path / "gone") in result.bench.cells[0].error
    assert all(c.output_tokens_per_s is None and c.ttft_s is None for c in result.bench.cells[:2]), "no number is made up"


def test_when_a_file_may_grow_no_more_its_cell_fails_and_no_record_is_torn(tmp_path: Path, tiny_model: Path) -> None:
    """A limit on the size of any file: the kernel refuses the bytes beyond it, and waiting would bring no room."""
    spec = BenchSpec.model_validate_json(json.dumps({**SPEC, "models": [{"name": str(tiny_model), "label": "tiny"}], "repeats": 8}))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); "
        "from workloads.inference.bench import main; sys.argv[1:] = ['--run', sys.argv[1]]; main()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    requests = [RequestRecord.model_validate_json(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    ledger = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()][1:]
    measured = [entry["cell"] for entry in ledger if entry["cell"]["failure"] is None]
    assert 0 < len(measured) < 16
    assert len(requests) == 6 * len(measured), "each cell's requests are there, or none of them"
    assert [entry["cell"]["failure"] for entry in ledger] == [None] * len(measured) + ["disk_full"], "it ends the sweep"
