"""A fake pynvml for the sampler's process, and the one way these tests read samples back."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ncdemo.spec.result import Sample

FAKE_PYNVML = '''
"""Stands where pynvml does. What the GPUs do is read from a JSON file at each call, so a test can change it mid-run."""
import json, os, time
NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION, NVML_ERROR_DRIVER_NOT_LOADED = 3, 4, 9
NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_GPU_IS_LOST = 12, 13, 15
NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1
class NVMLError(Exception):
    def __init__(self, value): self.value = value
    def __str__(self): return {3: "Not Supported", 12: "NVML Shared Library Not Found", 15: "GPU is lost"}[self.value]
class Answer:
    def __init__(self, **fields): self.__dict__.update(fields)
def state(): return json.load(open(os.environ["FAKE_GPUS"]))
def value(index, number):
    if state().get("hang"): time.sleep(60)
    if index in state().get("lost", ()): raise NVMLError(15)
    return number
def nvmlInit():
    if state().get("absent"): raise NVMLError(12)
def nvmlDeviceGetCount(): return state()["count"]
def nvmlDeviceGetHandleByIndex(index): return index + 100
def nvmlDeviceGetUtilizationRates(h): raise NVMLError(3)
def nvmlDeviceGetMemoryInfo(h): return Answer(used=value(h - 100, 5 << 30))
def nvmlDeviceGetPowerUsage(h): return value(h - 100, 350_500)
def nvmlDeviceGetTotalEnergyConsumption(h): return value(h - 100, 9_000_000)
def nvmlDeviceGetTemperature(h, sensor): return value(h - 100, 61)
def nvmlDeviceGetClockInfo(h, clock): return value(h - 100, 1980)
'''


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the fake where the sampler's process finds it; the returned function says what the GPUs do from now on."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pynvml.py").write_text(FAKE_PYNVML)
    state = tmp_path / "gpus.json"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("FAKE_GPUS", str(state))

    def are(**now: object) -> None:
        (tmp_path / "new.json").write_text(json.dumps(now))
        (tmp_path / "new.json").replace(state)

    return are


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
