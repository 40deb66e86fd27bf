"""A fake NVML for the sampler's process, the one way these tests read samples back, and a real MLflow to log to."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ncdemo.spec.result import Sample

SOURCE = Path(__file__).parent / "fake_nvml.c"


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a libnvidia-ml.so.1 that answers from a trace; its source says how."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the fake NVML needs a C compiler (cc or gcc)")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


@pytest.fixture
def gpus(nvml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let processes that are started from now on find the fake NVML; the returned function gives it its trace."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml))
    monkeypatch.setenv("FAKE_NVML_TRACE", str(tmp_path / "gpus.trace"))
    return lambda trace: (tmp_path / "gpus.trace").write_text(trace)


@pytest.fixture
def samples() -> Callable[[Path], list[Sample]]:
    def read(path: Path) -> list[Sample]:
        return [Sample.model_validate_json(line) for line in path.read_text().splitlines()]

    return read


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for something that another process does, at most 5 s."""

    def wait(happened: Callable[[], object]) -> None:
        end = time.monotonic() + 5
        while not happened():
            assert time.monotonic() < end, "didn't happen within 5 s"
            time.sleep(0.01)

    return wait


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"ncdemo_tests_{name}", Path(__file__).parents[1] / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tracking:
    """Where runs are logged: the cluster's server where MLflow's is installed, else an SQLite file. One process asks it, for its import's sake."""

    def __init__(self, uri: str, folder: Path, blobs: Callable[[], dict[str, bytes]] | None = None) -> None:
        """`blobs`: what its blob service holds; None: its artifacts lie on disk."""
        self.uri, self.blobs = uri, blobs
        command = [sys.executable, "-W", "ignore", "-c", ASKED, uri]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self._process.stdout.readline()

    def read(self, name: str) -> list[dict[str, Any]]:
        """Return the MLflow runs of a name, deleted ones too: info, data, history, and artifacts by download."""
        return self._ask("read", name)

    def export(self, folder: Path) -> str:
        """Export a run as log_run's process does, and return its id."""
        return self._ask("export", str(folder))["run_id"]

    def _ask(self, *words: str) -> Any:
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "it ended; its last words are above"
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


ASKED = """
import json, sys, tempfile
from pathlib import Path
from mlflow import MlflowClient
from mlflow.entities import ViewType
from workloads.metrics.mlflow_export import export
answers, sys.stdout = sys.stdout, sys.stderr  # MLflow prints where a run can be looked at
client = MlflowClient(sys.argv[1])
client.search_experiments()  # makes a new file's tables, which two processes can't at once
print(json.dumps("ready"), file=answers, flush=True)

def read(name):
    experiments = [client.get_experiment_by_name("ncdemo").experiment_id]
    runs = []
    for run in client.search_runs(experiments, f"attributes.run_name = '{name}'", ViewType.ALL):
        run_id = run.info.run_id
        history = {key: sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, key)) for key in run.data.metrics}
        artifacts = {}
        with tempfile.TemporaryDirectory() as folder:
            if client.list_artifacts(run_id):
                root = Path(client.download_artifacts(run_id, "", folder))
                artifacts = {str(f.relative_to(root)): f.read_bytes().decode(errors="replace") for f in root.rglob("*") if f.is_file()}
        runs.append({"info": dict(run.info), **run.data.to_dictionary(), "history": history, "artifacts": artifacts})
    return runs

for line in sys.stdin:
    what, word = json.loads(line)
    print(json.dumps(read(word) if what == "read" else export(Path(word), sys.argv[1])), file=answers, flush=True)
"""


@pytest.fixture(scope="session")
def servers() -> Any:
    """How the cluster starts its MLflow server."""
    return _load("mlflow_server")


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory, servers: Any) -> Iterator[Tracking]:
    """One store for the session, as a server takes ten seconds to start."""
    folder = tmp_path_factory.mktemp("mlflow")
    azurite = _load("azurite")
    with ExitStack() as ends:
        if servers.installed():
            service = ends.enter_context(azurite.Azurite(folder.with_name(f"{folder.name}-blobs"))) if azurite.find() else None
            if service:
                service.container("mlflow").close()
            server = ends.enter_context(servers.MlflowServer(folder, service.connection_string if service else None))
            found = Tracking(server.uri, folder, (lambda: service.blobs("mlflow")) if service else None)
        elif importlib.util.find_spec("sqlalchemy") and importlib.util.find_spec("alembic"):
            found = Tracking(f"sqlite:///{folder}/mlflow.db", folder)
        else:
            pytest.skip("an SQLite tracking store needs sqlalchemy and alembic")
        ends.callback(found.close)
        yield found
