"""A fake NVML for the sampler's process, and the one way these tests read samples back."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

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
