"""What the sampler at 10 Hz costs a compute loop on all cores. Bars: under 0.5 % of step time, under 1 % of a core.

A training step of 10 ms runs again and again. A tick is due every 100 ms, and what was read is written 50 ms after a tick. So the place of
a step's start between two ticks decides, before it runs, whether a tick, a write or nothing falls into it; steps of the three kinds lie
side by side, thousands of each, and whatever else the machine does meets all alike. What a tick adds is the difference of means over the step and
the one after it (whose caches it emptied), each without the slowest and the fastest tenth; the same for a write; a second has ten of both.

    python -m benchmarks.sampler_overhead --quick
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from benchmarks.machine import machine
from workloads.metrics.sampler import Sampler

BAR, CORE_BAR = 0.005, 0.01
HZ = 10.0
STEP_S = 0.01
# Where in the period a step begins, in seconds after a tick. Two steps of the last kind end before the next tick.
KINDS = {"tick": (0.0925, 0.0995), "write": (0.0425, 0.0495), "nothing": (0.054, 0.078)}
CHUNK_S = 5.0
"""What is drawn again together for the interval: neighbours are alike."""

Span = tuple[float, str, float]
"""When a step began, its kind, and what it and the next took."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler_overhead", description="Measure what the sampler costs.")
    parser.add_argument("--seconds", type=float, default=300.0, help="measure for so long (default: 300)")
    parser.add_argument("--quick", action="store_true", help="20 seconds; too short to decide about 0.5 %%")
    args = parser.parse_args()
    torch.set_num_threads(threads := len(os.sched_getaffinity(0)))
    step = _sized_step()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(step, Path(folder) / "samples.jsonl", 20.0 if args.quick else args.seconds)
    print(json.dumps(result | {"threads": threads, "load_average_1min": os.getloadavg()[0], **machine()}, indent=1))


def measure(step: Callable[[], object], path: Path, seconds: float) -> dict:
    """Return the share of step time that ticks and writes cost with its bootstrap 95 % interval, and the sampler's share of a core."""
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
    costs = {kind: _cost_s(spans, [kind]) for kind in ("tick", "write")}
    low_s, high_s = _interval(spans)
    share = (after.user + after.system - before.user - before.system) / took_s
    return {
        "overhead": HZ * sum(costs.values()),
        "overhead_95": [HZ * low_s, HZ * high_s],
        "verdict": "under the bar" if HZ * high_s < BAR else "over the bar" if HZ * low_s > BAR else "undecided: too noisy or too short",
        "bar": BAR,
        "us_per_tick": 1e6 * costs["tick"],
        "us_per_write": 1e6 * costs["write"],
        "sampler_share_of_one_core": share,
        "core_bar": CORE_BAR,
        "sampler_us_per_sample": 1e6 * share / HZ,
        "steps": {kind: sum(kind == its for _, its, _ in spans) for kind in KINDS},
        "step_ms": 500 * statistics.median(took for _, _, took in spans),
        "late_ms_p99": 1e3 * sorted(sample["late_s"] for sample in samples)[int(0.99 * len(samples))],
    }


def _spans(starts: list[float], first_s: float) -> list[Span]:
    """Return each step that is of a kind."""
    found = []
    for start, end in zip(starts, starts[2:], strict=False):
        phase = (start - first_s) % (1 / HZ)
        found += [(start, kind, end - start) for kind, (low, high) in KINDS.items() if low <= phase < high]
    return found


def _cost_s(spans: list[Span], kinds: list[str]) -> float:
    """Return what one of each kind adds to the time of steps."""
    means = {}
    for kind in (*kinds, "nothing"):
        took = sorted(took for _, its, took in spans if its == kind)
        means[kind] = statistics.fmean(took[len(took) // 10 : -(len(took) // 10) or None])
    return sum(means[kind] - means["nothing"] for kind in kinds)


def _interval(spans: list[Span]) -> tuple[float, float]:
    """Return the central 95 % of what a tick and a write cost together, over 1000 draws of chunks of time."""
    chunks: dict[int, list[Span]] = {}
    for span in spans:
        chunks.setdefault(int(span[0] / CHUNK_S), []).append(span)
    draw, pieces = random.Random(0), list(chunks.values())
    found = sorted(
        _cost_s([span for piece in draw.choices(pieces, k=len(pieces)) for span in piece], ["tick", "write"]) for _ in range(1000)
    )
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
