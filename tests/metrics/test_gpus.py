"""GPUs through a fake NVML at the module seam: present, lost mid-run, silent, absent."""

import re
import time
from pathlib import Path

import pynvml

from ncdemo.spec.result import GpuSample
from workloads.metrics import environment, gpus
from workloads.metrics.sampler import Sampler


def watch(path, until, count=4):
    seen = path.read_text().count("\n") if path.exists() else 0
    until(lambda: path.exists() and path.read_text().count("\n") >= seen + count)


def test_every_name_asked_of_nvml_is_in_the_real_module():
    source = Path(gpus.__file__).read_text() + Path(environment.__file__).read_text()
    names = set(re.findall(r"\bNVML\w+|\bnvml[A-Z]\w+", source)) - {"NVML"}
    assert len(names) > 15
    assert not [name for name in names if not hasattr(pynvml, name)]


def test_a_gpu_that_vanishes_has_an_error_and_the_rest_goes_on(tmp_path, gpus, samples, until):
    path = tmp_path / "samples.jsonl"
    gpus(count=2)
    with Sampler(path, 20, time.perf_counter_ns()):
        watch(path, until)
        gpus(count=2, lost=[1])
        watch(path, until)
    healthy, after = samples(path)[1], samples(path)[-2]
    # Its utilization is "not supported", as on a MIG slice: None, and no error.
    one = GpuSample(index=1, memory_used_bytes=5 << 30, power_w=350.5, energy_j=9000, temperature_c=61, sm_clock_hz=1.98e9)
    assert healthy.gpus[1] == one
    assert after.gpus == [one.model_copy(update={"index": 0}), GpuSample(index=1, error="GPU is lost")]
    assert after.cpu_pct is not None


def test_nvml_that_stops_answering_does_not_stop_the_rest(tmp_path, gpus, samples, until):
    path = tmp_path / "samples.jsonl"
    gpus(count=1)
    with Sampler(path, 10, time.perf_counter_ns()):
        watch(path, until, 2)
        gpus(count=1, hang=True)
        watch(path, until, 6)
        left_s = time.monotonic()
    assert time.monotonic() - left_s < 1
    last = samples(path)[-2]
    assert last.gpus[0].error.startswith("NVML has not answered for ")
    assert last.gpus[0].power_w is None
    assert last.memory_used_bytes > 0


def test_no_nvml_is_no_gpus_and_no_noise(tmp_path, gpus, samples, until, capfd):
    path = tmp_path / "samples.jsonl"
    gpus(absent=True)
    with Sampler(path, 20, time.perf_counter_ns()):
        watch(path, until)
    assert all(sample.gpus == [] for sample in samples(path))
    assert capfd.readouterr().err == ""


def test_nvml_that_does_not_start_is_said_once(tmp_path, gpus, samples, until, capfd):
    path = tmp_path / "samples.jsonl"
    gpus()
    with Sampler(path, 20, time.perf_counter_ns()):
        watch(path, until)
    assert all(sample.gpus == [] for sample in samples(path))
    assert capfd.readouterr().err.count("GPUs are not measured: NVML does not start") == 1
