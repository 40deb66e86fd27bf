"""How long `ncdemo stack preview` takes, and how much memory: whole processes, one after the other.

    python benchmarks/stack_preview.py --stack aks-full --runs 7

Bars: at most 5 s and 300 MB.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time


def one(stack: str) -> tuple[float, float]:
    """Return seconds and peak resident MB of one preview."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ncdemo", "stack", "preview", stack], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"the preview failed ({status})")
    return seconds, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stack", default="aks-full")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    one(args.stack)  # files come from the disk once
    found = [one(args.stack) for _ in range(args.runs)]
    seconds, megabytes = zip(*found, strict=True)
    print(
        f"{args.stack}, {args.runs} runs: median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s, most {max(megabytes):.0f} MB"
    )


if __name__ == "__main__":
    main()
