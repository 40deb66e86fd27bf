"""NVML after a GPU was reset or its driver loaded anew, through the fake library at the C boundary and the sampler's own process."""

import itertools
import os
import subprocess
import sys
import time

import pytest

from ncdemo.spec.result import GpuSample

TWO = "0 - count 2\n0 0 power_mw 100000\n0 1 power_mw 200000\n"
SAMPLER = """
from workloads.metrics import gpu, gpus, sampler, session
gpu.RETRY_S, gpus.SLOW_S, session.FIRST_S, session.LONGEST_S = 0.1, 0.05, 0.2, 0.4
sampler.main()
"""
"""It waits for seconds less."""


@pytest.fixture
def sampled(tmp_path, gpus, samples):
    """Sample for some seconds, and return the samples, what was said, and whether NVML was open after the seconds in `look`."""

    def sample(trace, seconds, look=(), hz=50):
        gpus(trace)
        out = tmp_path / "samples.jsonl"
        words = ["--out", str(out), "--hz", str(hz), "--pid", str(os.getpid())]
        process = subprocess.Popen([sys.executable, "-c", SAMPLER, *words], stderr=subprocess.PIPE, text=True)
        while not out.exists() or not out.stat().st_size:
            time.sleep(0.01)
        began_s, opened = time.monotonic(), []
        for at_s in [*look, seconds]:
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            links = [os.path.realpath(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
            opened.append(str(tmp_path / "gpus.trace") in links)
        process.terminate()
        said = process.communicate(timeout=10)[1]
        return samples(out), said, opened[:-1]

    return sample


def _told(found, index):
    """The same without the ticks in which NVML was too busy, which part no stretch of equal ones."""
    return [state for state, _ in itertools.groupby(state for state in _runs(found, index) if state is not None)]


def _runs(found, index):
    """Return what a GPU's samples say, each once in a row: its power, its error, or None for neither."""
    said = [sample.gpus[index].error or sample.gpus[index].power_w for sample in found if sample.gpus]
    return [said[i] for i in range(len(said)) if i == 0 or said[i] != said[i - 1]]


def _on_time(found, hz=50):
    ticks = [sample.tick for sample in found if sample.tick is not None]
    assert len(ticks) > 0.95 * (ticks[-1] + 1)
    assert sorted(sample.late_s for sample in found if sample.tick is not None)[len(ticks) // 2] < 0.3 / hz


def test_a_driver_that_is_loaded_anew_is_read_again(sampled):
    found, said, opened = sampled(TWO + "0.8 - loaded 1\n0.8 - init !9\n2 - init 0\n", 3.2, look=(0.4, 1.6, 3.1))
    for index, watts in ((0, 100.0), (1, 200.0)):
        runs = _told(found, index)
        assert runs[0] == runs[-1] == watts
        assert set(runs[1:-1]) == {"GPU is lost", "Driver Not Loaded"}, "first as the session says, then as its successors don't begin"
        assert said.count(f"GPU {index} does not answer: GPU is lost") == said.count(f"GPU {index} answers again, after ") == 1
    assert opened == [True, False, True], "open, it would keep the driver from being unloaded"
    _on_time(found)


def test_an_upgraded_driver_is_read_by_its_own_library(sampled):
    found, _, _ = sampled(TWO + "0.8 - loaded 1\n0.8 - library 2\n", 2.4)
    assert _told(found, 0) == [100.0, "GPU is lost", 100.0]
    _on_time(found)


def test_a_gpu_that_was_reset_comes_back_and_the_other_goes_on(sampled):
    found, said, _ = sampled(TWO + "0.6 0 gpu !15\n1.6 0 loaded 1\n1.6 0 gpu 0\n", 3)
    assert _told(found, 0) == [100.0, "GPU is lost", 100.0]
    assert set(_runs(found, 1)) <= {200.0, None}, "it keeps its index where NVML counts it first, and isn't lost between two sessions"
    assert "GPU 1" not in said
    alive = [sample.gpus[1] for sample in found if sample.gpus]
    assert sum(one.power_w is None for one in alive) < 0.2 * len(alive)


def test_a_session_that_takes_long_to_begin_delays_no_tick(sampled):
    found, _, _ = sampled(TWO + "0.6 0 gpu !15\n0.6 - init_s 1\n", 2.2)
    assert _runs(found, 0)[-1] == "GPU is lost"
    waiting = [sample.gpus for sample in found if sample.gpus and sample.gpus[1].power_w is None]
    assert len(waiting) > 30, "about 50 while NVML begins"
    assert {row.error for _, row in waiting} == {None}, "no loss of the other GPU is made up"
    assert GpuSample(index=0, error="GPU is lost") in [row for row, _ in waiting]
    _on_time(found)


BACK_OFF = """
import time, pynvml
from workloads.metrics import session
session.FIRST_S, session.LONGEST_S = 0.1, 0.4
one, tried, begin = session.Session(pynvml, lambda _: None), [], pynvml.nvmlInit
pynvml.nvmlInit = lambda: (tried.append(time.monotonic()), begin())
end = time.monotonic() + 2.4
while time.monotonic() < end:
    one.read(), one.tend()
    time.sleep(0.005)
print(*(later - before for before, later in zip(tried, tried[1:])))
"""


def test_sessions_are_tried_less_and_less_often(gpus):
    gpus("0 - count 1\n0 0 power_mw 1\n0.1 - loaded 1\n0.1 - init !9\n")
    said = subprocess.run([sys.executable, "-c", BACK_OFF], capture_output=True, text=True, check=True, timeout=20).stdout
    waits = [float(word) for word in said.split()]
    assert len(waits) >= 3
    assert waits[0] == pytest.approx(0.2, abs=0.1)
    assert waits[1:] == pytest.approx([0.4] * len(waits[1:]), abs=0.15)
