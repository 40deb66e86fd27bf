"""Whether the sampler loses samples at a high rate, beside a busy machine. Bar: none in an hour at 100 Hz.

All cores are kept busy by processes of this script, unless --idle. A tick that comes while the one before is still taken is skipped
and counted: it is lost as much as one that could not be written.

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

from workloads.metrics.sampler import Sampler

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


def measure(path: Path, hz: float, seconds: float, busy: int) -> dict:
    """Return how many samples were due between the first and the last, how many lack, and the longest gap."""
    with ExitStack() as ends:
        for _ in range(busy):
            ends.callback(ends.enter_context(subprocess.Popen([sys.executable, "-c", BUSY])).kill)
        with Sampler(path, hz, time.perf_counter_ns()):
            while not (path.exists() and path.stat().st_size):
                time.sleep(0.01)
            time.sleep(seconds)
    # The last one is taken when the sampler is told to end, between two ticks.
    times = [json.loads(line)["time_s"] for line in path.read_text().splitlines()][:-1]
    due = round((times[-1] - times[0]) * hz) + 1
    gaps = [after - before for before, after in pairwise(times)]
    found = {"hz": hz, "seconds": seconds, "busy_processes": busy, "due": due, "written": len(times), "lost": max(0, due - len(times))}
    return found | {"longest_gap_s": max(gaps), "bytes": path.stat().st_size}


if __name__ == "__main__":
    sys.exit(main())
