"""Run directories from the report's tests, and real servers to export them to."""

import importlib.util
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"ncdemo_tests_{path.stem}_of_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_runs = _module(Path(__file__).parents[1] / "report" / "conftest.py")
train_run, bench_run = _runs.train_run, _runs.bench_run


@pytest.fixture(scope="session")
def servers() -> Any:
    return _module(Path(__file__).parent / "servers.py")


@pytest.fixture(scope="session")
def observed() -> Any:
    return _module(Path(__file__).parent / "observed.py")


@pytest.fixture(scope="session")
def breeze() -> Any:
    return _module(Path(__file__).parent / "breeze.py")


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCDEMO_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("NCDEMO_PUSHGATEWAY", raising=False)
    monkeypatch.setenv("NODE_NAME", "node-1")


@pytest.fixture
def gateway(servers: Any, tmp_path: Path) -> Iterator[str]:
    with servers.pushgateway(tmp_path) as url:
        yield url


Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="session")
def scrape() -> Callable[[str], Series]:
    """Return what a /metrics page of ours shows: {(name, labels): value}."""

    def read(url: str) -> Series:
        text = urllib.request.urlopen(f"{url}/metrics", timeout=5).read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("ncdemo_")
        }

    return read


@pytest.fixture(scope="session")
def ncdemo() -> Callable[..., subprocess.CompletedProcess]:
    def run(*args: object, **env: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "ncdemo", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=60)

    return run
