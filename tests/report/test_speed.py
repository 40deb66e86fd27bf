"""A long run stays cheap to report: time and memory of a process that does nothing else."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys, time
from pathlib import Path
started = time.process_time()
from ncdemo.report import write_report
out = write_report([Path(sys.argv[1])], Path(sys.argv[2]))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps([time.process_time() - started, int(peak) * 1024, out.stat().st_size]))
"""
# process_time, not the wall: a machine that does other things meanwhile must not fail this.


def measure(folder, out):
    done = subprocess.run([sys.executable, "-c", CODE, str(folder), str(out)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


GPU = (
    '{"index": 0, "error": null, "utilization_pct": 93, "memory_used_bytes": 75161927680, "power_w": 380.5, "energy_j": 9e6, "temperature_c": 61, '
    '"sm_clock_hz": 1.785e9, "memory_clock_hz": 2.619e9, "throttle_reasons": ["power_cap"], "xids": []}'
)
SLOW = (
    ', "pcie_tx_bytes_per_s": 1e9, '
    '"pcie_rx_bytes_per_s": 2e9, "nvlink_tx_bytes": 5, "nvlink_rx_bytes": 6, "ecc_corrected": 3, "ecc_uncorrected": 0, '
    '"processes": [{"pid": 4711, "memory_bytes": 73014444032}]}'
)


def write_samples(folder, count, gpus=0):
    """Write what the sampler writes twice a second, one reading like the next but for time and load; slow fields of GPUs in every other."""
    folder.mkdir()
    (folder / "spec.yaml").write_text("kind: train\nname: long\n")
    rest = ', "process_cpu_pct": 180.1, "process_rss_bytes": 2345678901, "memory_used_bytes": 5678901234, "disk_read_bytes_per_s": 1234.5'
    rest += ', "disk_write_bytes_per_s": 0.0, "net_recv_bytes_per_s": 123.4, "net_sent_bytes_per_s": 55.5, "gpus": ['
    rows = [", ".join([row] * gpus) + "]}\n" for row in (GPU, GPU.removesuffix("}") + SLOW)]
    with (folder / "samples.jsonl").open("w") as file:
        file.writelines(f'{{"time_s": {i / 2}, "cpu_pct": {i * 7919 % 1000 / 10}{rest}{rows[i % 2]}' for i in range(count))
    return folder


@pytest.mark.parametrize("gpus", [0, 1])
def test_fifty_thousand_samples(tmp_path, gpus):
    seconds, peak, size = measure(write_samples(tmp_path / "long", 50_000, gpus), tmp_path / "r.html")
    assert seconds < 5
    assert peak < 300e6
    assert size < 300e3
    assert "50,000 samples" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, 1])
def test_a_million_samples_in_five_seconds_and_500_mb(tmp_path, gpus):
    seconds, peak, size = measure(write_samples(tmp_path / "long", 1_000_000, gpus), tmp_path / "r.html")
    assert seconds < 5
    assert peak < 500e6
    assert size < 200e3
