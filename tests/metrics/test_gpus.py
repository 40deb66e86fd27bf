"""GPUs through nvidia-ml-py and a fake library at the C boundary: present, slowed, lost mid-run, silent, absent."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pynvml

from ncdemo.spec.result import GpuProcess, GpuSample
from workloads.metrics import environment, gpu, session
from workloads.metrics import gpus as module
from workloads.metrics.sampler import Sampler

TWO = (Path(__file__).parent / "traces" / "two_h100.trace").read_text()
ONE = "0 - count 1\n0 0 power_mw 350500\n0 0 memory_used 5368709120\n"


def taken(path, until, samples, seconds=1.0, hz=20):
    """Sample for so long after the first sample is in the file."""
    with Sampler(path, hz, time.perf_counter_ns()):
        until(lambda: path.exists() and path.stat().st_size)
        time.sleep(seconds)
    return samples(path)


def test_every_name_asked_of_nvml_is_in_the_real_module():
    source = "".join(Path(part.__file__).read_text() for part in (module, gpu, session, environment))
    names = set(re.findall(r"\bNVML_\w+|\bNVMLError\b|\bnvml[A-Z]\w+", source)) - {"nvmlReturn"}
    assert len(names) > 30
    assert not [name for name in names if not hasattr(pynvml, name)]


def test_reasons_are_nvmls_bits_in_order():
    reasons = pynvml.nvmlClocksEventReasonGpuIdle, pynvml.nvmlClocksEventReasonHwThermalSlowdown, pynvml.nvmlClocksEventReasonAll
    assert [gpu.REASONS.index(name) for name in ("gpu_idle", "hw_thermal")] == [value.bit_length() - 1 for value in reasons[:2]]
    assert len(gpu.REASONS) == reasons[2].bit_length()


def test_a_trace_of_two_gpus_of_which_one_is_lost(tmp_path, gpus, samples, until):
    gpus(TWO)
    found = taken(tmp_path / "samples.jsonl", until, samples, 1.3)
    one, two = ([sample.gpus[i] for sample in found] for i in (0, 1))
    fast = {"utilization_pct": 97, "memory_used_bytes": 80 << 30, "power_w": 388.5, "temperature_c": 61, "sm_clock_hz": 1.785e9}
    fast |= {"energy_j": 9e6, "memory_clock_hz": 2.619e9, "throttle_reasons": ["power_cap"], "xids": []}
    assert one[1].model_copy(update=dict.fromkeys(_slow())) == GpuSample(index=0, **fast)
    assert max(sample.energy_j for sample in one) == 9_000_200
    slow = next(sample for sample in one if sample.ecc_corrected is not None)
    assert {name: getattr(slow, name) for name in _slow()} == {
        "pcie_tx_bytes_per_s": 1.2e9,
        "pcie_rx_bytes_per_s": 2.4e9,
        "nvlink_tx_bytes": 5_000_000 * 1024,
        "nvlink_rx_bytes": 6_000_000 * 1024,
        "ecc_corrected": 0,
        "ecc_uncorrected": 0,
        "processes": [GpuProcess(pid=4242, memory_bytes=85_000_000_000)],
    }
    # What the second GPU doesn't have is None and no error, as a MIG slice has no utilisation.
    assert two[1].error is two[1].utilization_pct is None
    assert two[1].throttle_reasons == ["hw_slowdown", "hw_thermal"]
    met = next(sample for sample in two if sample.ecc_corrected is not None)
    assert (met.ecc_corrected, met.nvlink_tx_bytes, met.pcie_tx_bytes_per_s, met.processes) == (3, None, None, None)
    assert two[-1] == GpuSample(index=1, error="GPU is lost", xids=[])
    assert one[-1].power_w == 388.5, "the other one goes on"
    # Each XID once, in the sample after it, also of a GPU that is lost by then.
    assert [xid for sample in two for xid in sample.xids] == [63, 79]
    assert [xid for sample in one for xid in sample.xids] == [43]
    assert all(sample.tick is not None for sample in found[:-1])


def _slow():
    names = list(GpuSample.model_fields)
    return names[names.index("pcie_tx_bytes_per_s") :]


def test_slow_fields_come_once_a_second_and_delay_no_tick(tmp_path, gpus, samples, until):
    """Eight GPUs whose PCI bus is watched for 20 ms per direction: 320 ms, over 30 periods at 100 Hz."""
    trace = [f"0 {i} {field} 1000" for i in range(8) for field in ("power_mw", "pcie_tx_kb", "pcie_rx_kb")]
    gpus("\n".join(["0 - count 8", *trace, ""]))
    found = taken(tmp_path / "samples.jsonl", until, samples, 2.2, hz=100)
    with_slow = [sample for sample in found if sample.gpus and sample.gpus[7].pcie_rx_bytes_per_s is not None]
    assert 2 <= len(with_slow) <= 4
    assert sum(sample.gpus[7].power_w == 1 for sample in found if sample.gpus) > 0.8 * len(found)
    assert max(sample.late_s for sample in found[:-1]) < 0.01


AGAIN = """
import time, pynvml
from workloads.metrics import gpu
gpu.RETRY_S = 0.1
pynvml.nvmlInit()
one, end = gpu.Gpu(pynvml, 0), time.monotonic() + 1
while time.monotonic() < end:
    print(one.read()["error"])
    time.sleep(0.02)
"""


def test_a_driver_error_that_passes_is_asked_again(gpus):
    gpus(ONE + "0 0 gpu 0\n0.2 0 gpu !999\n0.5 0 gpu 0\n")
    said = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True, timeout=10).stdout.split("\n")[:-1]
    assert [said[i] for i in range(len(said)) if i == 0 or said[i] != said[i - 1]] == ["None", "Unknown Error", "None"]


def test_an_older_driver_has_its_reasons_by_their_older_name(tmp_path, gpus, samples, until):
    gpus(ONE + "0 0 reasons !13\n0 0 older_reasons 32\n")
    assert taken(tmp_path / "samples.jsonl", until, samples, 0.2)[1].gpus[0].throttle_reasons == ["sw_thermal"]


def test_nvml_that_stops_answering_does_not_stop_the_rest(tmp_path, gpus, samples, until):
    gpus(ONE + "0.3 0 hang_s 60\n")
    began_s = time.monotonic()
    found = taken(tmp_path / "samples.jsonl", until, samples, 1.2, hz=10)
    assert time.monotonic() - began_s < 3.5
    assert found[1].gpus[0].power_w == 350.5
    last = found[-1]
    assert last.gpus[0].error.startswith("NVML has not answered for ")
    assert last.gpus[0].power_w is None
    assert last.memory_used_bytes > 0
    assert [sample.tick for sample in found[:-1]] == list(range(len(found) - 1)), "no tick waits for it"


def test_no_driver_is_no_gpus_and_no_noise(tmp_path, gpus, samples, until, capfd):
    gpus("0 - init !9\n")
    assert all(sample.gpus == [] for sample in taken(tmp_path / "samples.jsonl", until, samples, 0.2))
    assert capfd.readouterr().err == ""


def test_nvml_that_does_not_start_is_said_once(tmp_path, gpus, samples, until, capfd):
    gpus("0 - init !18\n")
    assert all(sample.gpus == [] for sample in taken(tmp_path / "samples.jsonl", until, samples, 0.2))
    assert capfd.readouterr().err.count("GPUs are not measured: NVML does not start (RM has detected") == 1


def test_a_recorded_trace_is_the_one_that_was_played(gpus, tmp_path):
    gpus(TWO)
    command = [sys.executable, "-m", "benchmarks.record_nvml", "--seconds", "1.4"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    ends = []
    for trace in (TWO, text):
        lines = [line.split() for line in trace.splitlines() if line and not line.startswith("#")]
        ends.append({(gpu, field): value for _, gpu, field, value in lines})
    assert ends[1] == {("0", "gpu"): "0"} | ends[0]
    assert [line.split()[3] for line in text.splitlines() if " 1 xid " in line] == ["0", "63", "79"]
