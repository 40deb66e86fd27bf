"""Sweeps in server mode as processes, and endpoints of somebody else's: both are the load generator's canned server."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.result import RunRecord
from ncdemo.spec.result_bench import Cell, RequestRecord

SPEC = {
    "mode": "server",
    "engines": ["echo"],
    "concurrency": [8],
    "prompts": {"count": 24},
    "sampling": {"max_new_tokens": 6},
    "max_model_len": 512,
    "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
}


class Swept:
    def __init__(self, folder: Path, done: subprocess.CompletedProcess) -> None:
        self.folder, self.code, self.said, self.told = folder, done.returncode, done.stderr, done.stdout
        self.record = RunRecord.model_validate_json((folder / "result.json").read_text())
        self.cells: list[Cell] = self.record.bench.cells if self.record.bench else []
        lines = (folder / "requests.jsonl").read_text().splitlines() if (folder / "requests.jsonl").exists() else []
        self.requests = [RequestRecord.model_validate_json(line) for line in lines]


@pytest.fixture
def swept(tmp_path: Path, tiny_model: Path) -> Callable[..., Swept]:
    """Run a sweep as a process, to its end."""

    def run(**changes) -> Swept:
        models = [{"name": str(tiny_model), "label": "canned"}]
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "spec.yaml").write_text(dump_spec(BenchSpec.model_validate_json(json.dumps({**SPEC, "models": models, **changes}))))
        command = [sys.executable, "-m", "workloads.inference.bench", "--run", str(folder)]
        return Swept(folder, subprocess.run(command, capture_output=True, text=True, timeout=200))

    return run


@pytest.fixture
def endpoint() -> Iterator[Callable[..., str]]:
    """Start a canned server of somebody else's with options; return its URL."""
    started: list[subprocess.Popen] = []

    def start(*options: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "workloads.inference.load.canned", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )  # fmt: skip
        started.append(process)
        return json.loads(process.stdout.readline())["url"]

    yield start
    for process in started:
        process.terminate()
        process.stdout.close()
        process.wait(10)
