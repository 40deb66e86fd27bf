"""What the sampler costs a compute loop: paired blocks with and without it, interleaved, on all cores. Bar: under 0.5 %, and under 1 %
of a core.

One sampler lives through the whole measurement; in the blocks without it, it is stopped (SIGSTOP). So the blocks can be short
and lie side by side, which cancels what else the machine does, and its start-up is left out of both. Two figures: the median over pairs,
and the same at the fifth of the steps that were fastest, which others on the machine held up least; each step holds as many samples.

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
from typing import Any

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
    ratios, pairs, cpu_s, sampled_s, step_s = [], [], 0.0, 0.0, []
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
                taken[sampled] = _block(step)  # each holds the same number of samples, and a neighbour's burst hits only some
                after = process.cpu_times()
                if sampled:
                    cpu_s += after.user + after.system - before.user - before.system
                    sampled_s += time.perf_counter() - began_s
            ratios.append(statistics.median(taken[True]) / statistics.median(taken[False]))
            pairs.append((taken[True], taken[False]))
            step_s += [statistics.median(steps) for steps in taken.values()]
        lines = path.read_text().count("\n") - lines_before
        os.kill(sampler.pid, signal.SIGCONT)
    low, high = _interval(ratios, statistics.median)
    fast_low, fast_high = _interval(pairs, _fastest)
    return {
        "overhead": statistics.median(ratios) - 1,
        "overhead_95": [low - 1, high - 1],
        "verdict": "under the bar" if high - 1 < BAR else "over the bar" if low - 1 > BAR else "undecided: too noisy or too short",
        "overhead_fastest_fifth": _fastest(pairs) - 1,
        "overhead_fastest_fifth_95": [fast_low - 1, fast_high - 1],
        "sampler_cpu_share_of_one_core": cpu_s / sampled_s,
        "sampler_cpu_s_per_sample": cpu_s / lines,
        "pairs": len(ratios),
        "step_s": statistics.median(step_s),
        "pair_ratio_stdev": statistics.stdev(ratios),
        "samples_per_s": lines / sampled_s,
    }


def _block(step: Callable[[], object]) -> list[float]:
    """Return how long each of some steps took."""
    taken = []
    for _ in range(STEPS_PER_BLOCK):
        began_s = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began_s)
    return taken


def _fastest(pairs: list[tuple[list[float], list[float]]]) -> float:
    """Return with / without at the 20th percentile of all steps."""
    with_s, without_s = (sorted(seconds for pair in pairs for seconds in pair[side]) for side in (0, 1))
    return with_s[len(with_s) // 5] / without_s[len(without_s) // 5]


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


def _interval(values: list[Any], figure: Callable[[list[Any]], float]) -> tuple[float, float]:
    """Return the central 95 % of a figure of 2000 resamples."""
    draw = random.Random(0)
    found = sorted(figure(draw.choices(values, k=len(values))) for _ in range(2000))
    return found[50], found[1949]


if __name__ == "__main__":
    main()
