"""What the sampler at 10 Hz costs a compute loop. Bars: under 0.5 % of step time, under 1 % of a core.

By default the loop keeps all cores busy, so that the sampler always takes one of them from it; with `--threads 1` others are free, as on
a machine whose GPUs do the work.

A training step of about 10 ms runs again and again. A tick is due every 100 ms, and the lines of some are written right after one. So the
place of a step's start between two ticks decides, before it runs, whether a tick falls into it; steps of both kinds lie side by side,
thousands of each, and whatever else the machine does meets both alike. What a tick adds is the difference of means over the step and the
one after it (whose caches it emptied), each without the slowest and the fastest tenth; a second has ten.

    python -m benchmarks.sampler_overhead --quick
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import torch

from benchmarks.machine import machine
from workloads.metrics.sampler import Sampler

BAR, CORE_BAR = 0.005, 0.01
HZ = 10.0
STEP_S = 0.01
CHUNK_S = 5.0
"""What is drawn again together for the interval: neighbours are alike."""

Span = tuple[float, str, float]
"""When a step began, its kind, and what it and the next took."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler_overhead", description="Measure what the sampler costs.")
    parser.add_argument("--seconds", type=float, default=300.0, help="measure for so long (default: 300)")
    parser.add_argument("--quick", action="store_true", help="20 seconds; too short to decide about 0.5 %%")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the loop (default: one per core)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    step = _sized_step()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(step, Path(folder) / "samples.jsonl", 20.0 if args.quick else args.seconds)
    print(json.dumps(result | {"threads": args.threads, "load_average_1min": os.getloadavg()[0], **machine()}, indent=1))


def measure(step: Callable[[], object], path: Path, seconds: float) -> dict:
    """Return the share of step time that ticks cost with its bootstrap 95 % interval, and the sampler's share of a core."""
    starts, zero_ns = [], time.perf_counter_ns()
    with Sampler(path, HZ, zero_ns) as sampler:
        while not (path.exists() and path.stat().st_size):
            time.sleep(0.01)
        process, began_s = psutil.Process(sampler.pid), time.perf_counter()
        before = process.cpu_times()
        while (now_s := time.perf_counter()) < began_s + seconds:
            starts.append(now_s - zero_ns / 1e9)
            step()
        after, took_s = process.cpu_times(), time.perf_counter() - began_s
    samples = [sample for line in path.read_text().splitlines() if (sample := json.loads(line))["tick"] is not None]
    first_s = statistics.median(sample["time_s"] - sample["late_s"] - sample["tick"] / HZ for sample in samples)
    spans = _spans(starts, first_s)
    cost_s = _cost_s(spans)
    low_s, high_s = _interval(spans)
    share = (after.user + after.system - before.user - before.system) / took_s
    return {
        "overhead": HZ * cost_s,
        "overhead_95": [HZ * low_s, HZ * high_s],
        "verdict": "under the bar" if HZ * high_s < BAR else "over the bar" if HZ * low_s > BAR else "undecided: too noisy or too short",
        "bar": BAR,
        "us_per_tick": 1e6 * cost_s,
        "us_per_tick_95": [1e6 * low_s, 1e6 * high_s],
        "sampler_share_of_one_core": share,
        "core_bar": CORE_BAR,
        "sampler_us_per_sample": 1e6 * share / HZ,
        "steps": dict(Counter(kind for _, kind, _ in spans)),
        "step_ms": 500 * statistics.median(took for _, _, took in spans),
        "late_ms_p99": 1e3 * sorted(sample["late_s"] for sample in samples)[int(0.99 * len(samples))],
    }


def _spans(starts: list[float], first_s: float) -> list[Span]:
    """Return each step that is of a kind: a tick is due in its first four fifths, or none in it and the next, nor just before."""
    step_s, found = statistics.median(after - before for before, after in pairwise(starts)), []
    if step_s > 0.025:
        raise SystemExit(f"a step takes {1e3 * step_s:.0f} ms: two don't fit between ticks. Remedy: a quieter machine")
    kinds = {"tick": (1 / HZ - 0.8 * step_s, 1 / HZ - 0.0005), "nothing": (2 * step_s, 1 / HZ - 2.1 * step_s)}
    for start, end in zip(starts, starts[2:], strict=False):
        phase = (start - first_s) % (1 / HZ)
        found += [(start, kind, end - start) for kind, (low, high) in kinds.items() if low <= phase < high]
    return found


def _cost_s(spans: list[Span]) -> float:
    """Return what a tick adds to the time of steps."""
    means = {}
    for kind in ("tick", "nothing"):
        took = sorted(took for _, its, took in spans if its == kind)
        means[kind] = statistics.fmean(took[len(took) // 10 : -(len(took) // 10) or None])
    return means["tick"] - means["nothing"]


def _interval(spans: list[Span]) -> tuple[float, float]:
    """Return the central 95 % of what a tick costs, over 1000 draws of chunks of time."""
    chunks: dict[int, list[Span]] = {}
    for span in spans:
        chunks.setdefault(int(span[0] / CHUNK_S), []).append(span)
    draw, pieces = random.Random(0), list(chunks.values())
    found = sorted(_cost_s([span for piece in draw.choices(pieces, k=len(pieces)) for span in piece]) for _ in range(1000))
    return found[25], found[974]


def _sized_step() -> Callable[[], object]:
    """Return a training step of a small MLP, repeated so that it takes about STEP_S on this machine."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 512))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(64, 512)

    def once() -> None:
        optimizer.zero_grad()
        (model(batch) - batch).square().mean().backward()
        optimizer.step()

    for _ in range(5):
        once()
    took_s = []
    for _ in range(50):
        began_s = time.perf_counter()
        once()
        took_s.append(time.perf_counter() - began_s)
    repeats = max(1, round(STEP_S / statistics.median(took_s)))
    return lambda: [once() for _ in range(repeats)]


if __name__ == "__main__":
    main()
