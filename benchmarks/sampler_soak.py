"""Whether the sampler loses samples at a high rate, beside a busy machine. Bar: none in an hour at 100 Hz.

All cores are kept busy by processes of this script, unless --idle. A tick is lost when its number is not in the file: it had not
begun when the next was due, or could not be written (docs/measurement.md).

    python -m benchmarks.sampler_soak --seconds 3600
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import psutil

from workloads.metrics.sampler import Sampler

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
BUSY = "while True: sum(range(10_000))"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler_soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="sample for so long (default: 60; the bar is 3600)")
    parser.add_argument("--hz", type=float, default=100.0, help="samples per second (default: 100)")
    parser.add_argument("--idle", action="store_true", help="keep no core busy")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder) / "samples.jsonl", args.hz, args.seconds, 0 if args.idle else len(os.sched_getaffinity(0)))
    print(json.dumps(result | {"load_average_1min": os.getloadavg()[0]}, indent=1))
    return 1 if result["lost"] else 0


def stolen() -> float:
    """Return seconds, summed over cores, in which the host of this virtual machine ran something else; no process can help that."""
    return getattr(psutil.cpu_times(), "steal", 0.0)


def measure(path: Path, hz: float, seconds: float, busy: int) -> dict:
    """Return how many ticks came between the first sample and the last, how many lack, how late the others were, and the CPU time."""
    with ExitStack() as ends:
        for _ in range(busy):
            ends.callback(ends.enter_context(subprocess.Popen([sys.executable, "-c", BUSY])).kill)
        with Sampler(path, hz, time.perf_counter_ns()) as sampler:
            while not (path.exists() and path.stat().st_size):
                time.sleep(0.01)
            process, began_s = psutil.Process(sampler.pid), time.perf_counter()
            before, stolen_s = process.cpu_times(), stolen()
            time.sleep(seconds)
            stolen_s = stolen() - stolen_s
            after, took_s = process.cpu_times(), time.perf_counter() - began_s
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    scheduling = samples[0].get("scheduling")
    # The last one is taken when the sampler is told to end, outside its schedule.
    samples = [sample for sample in samples if sample["tick"] is not None]
    due = samples[-1]["tick"] - samples[0]["tick"] + 1
    late_s = sorted(sample["late_s"] for sample in samples)
    return {
        "hz": hz,
        "seconds": seconds,
        "busy_processes": busy,
        "scheduling": scheduling,
        "due": due,
        "written": len(samples),
        "lost": due - len(samples),
        "late_ms": {name: round(1e3 * late_s[int(q * (len(late_s) - 1))], 3) for name, q in QUANTILES.items()},
        "longest_gap_s": max(b["time_s"] - a["time_s"] for a, b in pairwise(samples)),
        "cpu_share_of_one_core": (after.user + after.system - before.user - before.system) / took_s,
        "stolen_s": stolen_s,
        "bytes": path.stat().st_size,
    }


if __name__ == "__main__":
    sys.exit(main())
