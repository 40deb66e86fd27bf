"""Hardware samples beside a run, from a process of its own, so that they cost the run no step time and outlive its death.

Each line of the file is an ncdemo.spec.result.Sample, there within a second of being taken. `zero_ns` is the run's perf_counter_ns zero:
that clock is CLOCK_MONOTONIC on Linux and mach_absolute_time on macOS, one for all processes of the machine.

    with Sampler(run_dir / "samples.jsonl", hz=2, zero_ns=zero_ns): train()
    python -m workloads.metrics.sampler --out samples.jsonl --hz 2 --pid 1234
"""

import contextlib
import os
import sys
import time
from pathlib import Path

from workloads.metrics.companion import Companion


class Sampler:
    """Sample while the context is open, `hz` times a second; 0 starts nothing. Never raises into the workload."""

    def __init__(self, path: Path, hz: float, zero_ns: int, pid: int | None = None) -> None:
        """Write to `path`; `pid` is whose process tree is watched (None: this process)."""
        watched = os.getpid() if pid is None else pid
        self._hz = hz
        self._companion = Companion(
            "workloads.metrics.sampler",
            _arguments(path, hz, zero_ns, watched) if hz > 0 else [],
            name="the sampler",
            about=path,
            lacking="no hardware samples",
            late="its last sample may be missing",
            rest="samples after that are missing",
        )

    @property
    def pid(self) -> int | None:
        """The sampler's own process, None when there is none."""
        return self._companion.pid

    def __enter__(self) -> "Sampler":
        if self._hz > 0:
            self._companion.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        self._companion.__exit__(*ended)


def _arguments(path: Path, hz: float, zero_ns: int, watched: int) -> list[str]:
    import psutil

    arguments = ["--out", os.path.abspath(path), "--hz", str(hz), "--zero-ns", str(zero_ns)]
    arguments += ["--parent", str(os.getpid()), "--pid", str(watched)]
    with contextlib.suppress(psutil.Error):
        arguments += ["--pid-started", str(psutil.Process(watched).create_time())]
    return arguments


def main() -> None:
    import argparse

    from workloads.metrics.sampling import sample

    parser = argparse.ArgumentParser(prog="python -m workloads.metrics.sampler", description="Sample the hardware beside a process.")
    parser.add_argument("--out", required=True, help="JSON Lines file, appended to")
    parser.add_argument("--hz", type=float, default=2.0, help="samples per second")
    parser.add_argument("--zero-ns", type=int, default=time.perf_counter_ns(), help="perf_counter_ns that counts as 0 s (default: now)")
    parser.add_argument("--pid", type=int, required=True, help="process whose tree is watched; its end ends the sampling")
    parser.add_argument("--pid-started", type=float, help="when that process started (psutil create_time), so no other is taken for it")
    parser.add_argument("--parent", type=int, help="end with this process, or when standard input says so, instead of with --pid")
    args = parser.parse_args()
    if args.hz <= 0:
        parser.error(f"--hz {args.hz}: must be more than 0, e.g. 2")
    try:
        sample(args.out, args.hz, args.zero_ns, args.pid, args.pid_started, args.parent)
    except OSError as error:
        sys.exit(f"sampler: {args.out}: {error}")


if __name__ == "__main__":
    main()
