"""What the sampler costs a compute loop: paired blocks with and without it, interleaved, on all cores. Bar: under 0.5 %, and under 1 %
of a core.

One sampler lives through the whole measurement; in the blocks without it, it is stopped (SIGSTOP). So the blocks can be short
and lie side by side, which cancels what else the machine does, and its start-up is left out of both.

    python -m benchmarks.sampler_overhead --quick
"""

import argparse
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from workloads.metrics.sampler import Sampler

BAR = 0.005
STEP_S = 0.2
STEPS_PER_BLOCK = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler_overhead", description="Measure what the sampler costs.")
    parser.add_argument("--hz", type=float, default=10.0, help="samples per second (default: 10)")
    parser.add_argument("--seconds", type=float, default=150.0, help="begin no pair of blocks after this long (default: 150)")
    parser.add_argument("--quick", action="store_true", help="15 seconds; too short to decide about 0.5 %%")
    args = parser.parse_args()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads)
    step = _sized_step()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(step, Path(folder) / "samples.jsonl", args.hz, 15.0 if args.quick else args.seconds)
    result |= {"hz": args.hz, "threads": threads, "bar": BAR, "load_average_1min": os.getloadavg()[0]}
    print(json.dumps(result, indent=1))


def measure(step: Callable[[], object], path: Path, hz: float, seconds: float) -> dict:
    """Return the median over pairs of (time with / time without) - 1, with its bootstrap 95 % interval, and the sampler's CPU share.

    The share of one core is what the overhead can be at most, on a quiet machine: a step that waits for all its threads
    loses what the sampler takes from one of them.
    """
    ratios, cpu_s, sampled_s, step_s = [], 0.0, 0.0, []
    with Sampler(path, hz, time.perf_counter_ns()) as sampler:
        while not (path.exists() and path.stat().st_size):
            time.sleep(0.01)
        process = psutil.Process(sampler.pid)
        lines_before = path.read_text().count("\n")
        end_s = time.perf_counter() + seconds
        while len(ratios) < 3 or time.perf_counter() < end_s:
            taken = {}
            for sampled in (True, False) if len(ratios) % 2 else (False, True):
                os.kill(sampler.pid, signal.SIGCONT if sampled else signal.SIGSTOP)
                before, began_s = process.cpu_times(), time.perf_counter()
                taken[sampled] = _block(step)
                after = process.cpu_times()
                if sampled:
                    cpu_s += after.user + after.system - before.user - before.system
                    sampled_s += time.perf_counter() - began_s
            ratios.append(taken[True] / taken[False])
            step_s += taken.values()
        lines = path.read_text().count("\n") - lines_before
        os.kill(sampler.pid, signal.SIGCONT)
    low, high = _interval(ratios)
    return {
        "overhead": statistics.median(ratios) - 1,
        "overhead_95": [low - 1, high - 1],
        "verdict": "under the bar" if high - 1 < BAR else "over the bar" if low - 1 > BAR else "undecided: too noisy or too short",
        "sampler_cpu_share_of_one_core": cpu_s / sampled_s,
        "sampler_cpu_s_per_sample": cpu_s / lines,
        "pairs": len(ratios),
        "step_s": statistics.median(step_s),
        "pair_ratio_stdev": statistics.stdev(ratios),
        "samples_per_s": lines / sampled_s,
    }


def _block(step: Callable[[], object]) -> float:
    """Return the median time of a step: each holds the same number of samples, and a neighbour's burst hits only some."""
    taken = []
    for _ in range(STEPS_PER_BLOCK):
        began_s = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken)


def _sized_step() -> Callable[[], object]:
    """Return a training step of a small MLP, repeated so that it takes about STEP_S on this machine."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 512))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(256, 512)

    def once() -> None:
        optimizer.zero_grad()
        (model(batch) - batch).square().mean().backward()
        optimizer.step()

    for _ in range(5):
        once()
    began_s = time.perf_counter()
    for _ in range(20):
        once()
    repeats = max(1, round(STEP_S / ((time.perf_counter() - began_s) / 20)))
    return lambda: [once() for _ in range(repeats)]


def _interval(ratios: list[float]) -> tuple[float, float]:
    """Return the central 95 % of the medians of 2000 resamples."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]


if __name__ == "__main__":
    main()
