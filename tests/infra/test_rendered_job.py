"""A rendered job, run here: the very command, environment and spec of its pod, with the pod's folders below a temporary one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.render import render
from ncdemo.spec.job import NCDEMO_CACHE, NCDEMO_RESULTS_URI, RUNS_DIR, SCRATCH_DIR, SPEC_FILE
from ncdemo.spec.stack_file import stack_of


@pytest.mark.usefixtures("embedded")
def test_what_a_pod_would_run_runs_and_leaves_its_results(tmp_path: Path) -> None:
    small = {"engines": ["echo"], "prompts.count": 2, "concurrency": [1], "repeats": 1, "telemetry.mlflow_uri": None}
    job = {"name": "smoke", "config": "workloads/configs/inference/demo.yaml", "gpus": 0, "set": small}
    found = render(stack_of("dev", {"jobs": [job]}, {}))
    name = found.outputs["jobs"]["smoke"]
    manifests = {m["kind"]: m for m in found.manifests() if m["metadata"]["name"] == name}
    container = manifests["Job"]["spec"]["template"]["spec"]["containers"][0]

    def here(text: str) -> str:
        """Return a path of the pod as one below tmp_path."""
        return next((f"{tmp_path}{text}" for folder in (RUNS_DIR, SCRATCH_DIR, SPEC_FILE) if text.startswith(folder)), text)

    for folder in (RUNS_DIR, SCRATCH_DIR):
        (tmp_path / folder[1:]).mkdir()
    for file, text in manifests["ConfigMap"]["data"].items():
        path = Path(here(f"{Path(SPEC_FILE).parent}/{file}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    env = {one["name"]: here(one["value"]) for one in container["env"]}
    # The model is in the machine's cache, where a pod would convert it again; the results go to a folder instead of Blob.
    env = {**os.environ, **env, NCDEMO_CACHE: os.environ.get(NCDEMO_CACHE, ""), NCDEMO_RESULTS_URI: f"file://{tmp_path}/results"}
    env["XDG_CACHE_HOME"], env["HOME"] = os.environ.get("XDG_CACHE_HOME", ""), os.environ["HOME"]
    command = [sys.executable, *(here(word) for word in container["command"][1:])]
    done = subprocess.run(command, env=env, cwd=here(container["workingDir"]), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results" / name / "result.json").read_text())
    assert (result["status"], result["run_id"]) == ("finished", name)
    assert result["bench"]["cells"][0]["failed"] == 0
    assert result["spec_hash"] == found.stack.jobs[0].run.spec_hash()
    again = subprocess.run(command, env=env, cwd=here(container["workingDir"]), capture_output=True, text=True, timeout=200)
    assert again.returncode == 0
    assert json.loads((tmp_path / "results" / name / "result.json").read_text()) == result
