"""One way to start a job as a real process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ncdemo.spec import BenchSpec, dump_spec

ROOT = Path(__file__).resolve().parents[2]
ECHO = {
    "name": "echo",
    "engines": ["echo"],
    "concurrency": [1],
    "prompts": {"count": 4},
    "sampling": {"max_new_tokens": 5},
    "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
}
# The job as it is, with other waiting times and perhaps another workload.
DRIVER = """
import json, os, sys
import workloads.job, workloads.storage, workloads.upload
times, code, arguments = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
for name, value in times.items():
    for module in (workloads.job, workloads.storage, workloads.upload):
        if hasattr(module, name):
            setattr(module, name, value)
if code:
    workloads.job.workload_command = lambda spec, folder, python, **_: (python, "-c", code, str(folder))
sys.argv = ["job", *arguments]
os._exit(workloads.job.main())
"""


class Jobs:
    """Starts jobs named `job` in a folder of their own."""

    def __init__(self, tmp_path: Path) -> None:
        self.spec = tmp_path / "spec.yaml"
        self.runs = tmp_path / "runs"
        self.folder = self.runs / "job"
        self.copies = tmp_path / "copies"
        self.copy = self.copies / "job"
        self.write()

    def write(self, **changes: Any) -> BenchSpec:
        spec = BenchSpec.model_validate_json(json.dumps({**ECHO, **changes}))
        self.spec.write_text(dump_spec(spec))
        return spec

    def start(self, *, code: str = "", times: dict[str, float] | None = None, uri: str | None = None, **env: str) -> subprocess.Popen:
        """Start a job; `code` is Python that stands for the workload, its argument the run directory."""
        command = (
            [sys.executable, "-c", DRIVER, json.dumps(times or {}), code] if code or times else [sys.executable, "-m", "workloads.job"]
        )
        ours = {"NCDEMO_RUNS": str(self.runs), "NCDEMO_JOB": "job", "PYTHONPATH": str(ROOT)}
        ours["NCDEMO_RESULTS_URI"] = self.copies.as_uri() if uri is None else uri
        env = {**os.environ, **ours, **env}
        return subprocess.Popen([*command, "--spec", str(self.spec)], stderr=subprocess.PIPE, env=env, text=True)

    def run(self, **arguments: Any) -> tuple[int, str]:
        """Run a job to its end; return its exit code and what it said."""
        process = self.start(**arguments)
        _, said = process.communicate(timeout=120)
        return process.returncode, said

    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a run directory's copy must hold."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


@pytest.fixture
def held() -> Callable[[Path], dict[str, bytes]]:
    return contents
