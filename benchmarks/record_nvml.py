"""Record what this machine's NVML says as a trace for tests/metrics/fake_nvml.c: a line whenever a value changes.

python -m benchmarks.record_nvml --seconds 60 > h100.trace
"""

import argparse
import sys
import time
from collections.abc import Iterator

SCALED = {
    "utilization": ("utilization_pct", 1),
    "memory_used": ("memory_used_bytes", 1),
    "power_mw": ("power_w", 1e3),
    "energy_mj": ("energy_j", 1e3),
    "temperature_c": ("temperature_c", 1),
    "sm_mhz": ("sm_clock_hz", 1e-6),
    "memory_mhz": ("memory_clock_hz", 1e-6),
    "pcie_tx_kb": ("pcie_tx_bytes_per_s", 1e-3),
    "pcie_rx_kb": ("pcie_rx_bytes_per_s", 1e-3),
    "nvlink_tx_kib": ("nvlink_tx_bytes", 1 / 1024),
    "nvlink_rx_kib": ("nvlink_rx_bytes", 1 / 1024),
    "ecc_corrected": ("ecc_corrected", 1),
    "ecc_uncorrected": ("ecc_uncorrected", 1),
}
"""Field of the trace -> the sampler's, and what turns that into NVML's unit."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_nvml", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="record for so long (default: 60)")
    args = parser.parse_args()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        sys.exit(f"NVML does not start ({error}); compare `nvidia-smi`")
    for line in record(pynvml, args.seconds):
        print(line, flush=True)


def record(nvml: object, seconds: float) -> Iterator[str]:
    """Yield lines; the first reading of every field, then its changes. A failed GPU is `gpu !15`, whatever its error."""
    from workloads.metrics.gpu import REASONS, Events, Gpu

    count = nvml.nvmlDeviceGetCount()
    gpus = [Gpu(nvml, index) for index in range(count)]
    events = Events(nvml, gpus)
    yield f"# Recorded from {count} GPUs, driver {nvml.nvmlSystemGetDriverVersion()}\n0 - count {count}"
    began_s, last = time.perf_counter(), {}
    while (at_s := time.perf_counter() - began_s) < seconds:
        xids = events.new()
        for index, gpu in enumerate(gpus):
            row = gpu.read() | gpu.read_slow()
            found = {field: round(row[name] * scale) for field, (name, scale) in SCALED.items() if row.get(name) is not None}
            found["gpu"] = "!15" if row["error"] else 0
            if row["throttle_reasons"] is not None:
                found["reasons"] = sum(1 << REASONS.index(reason) for reason in row["throttle_reasons"])
            now = {p["pid"]: p["memory_bytes"] or 0 for p in row.get("processes") or ()}
            gone = [field for i, field in last if i == index and field.startswith("process:") and int(field[8:]) not in now]
            found |= {f"process:{pid}": used for pid, used in now.items()} | dict.fromkeys(gone, 0)
            for field, value in found.items():
                if last.get((index, field)) != value:
                    last[index, field] = value
                    yield f"{at_s:.3f} {index} {field} {value}"
            for xid in [0] * (not last.get((index, "xid"))) * (index in xids) + xids.get(index, []):
                last[index, "xid"] = True
                yield f"{at_s:.3f} {index} xid {xid}"
        time.sleep(0.1)


if __name__ == "__main__":
    main()
