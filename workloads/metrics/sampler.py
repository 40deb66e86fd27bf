"""Hardware samples beside a run, from a process of its own, so that they cost the run no step time and outlive its death.

Each line of the file is an ncdemo.spec.result.Sample, written as it is taken. `zero_ns` is the run's perf_counter_ns zero:
that clock is CLOCK_MONOTONIC on Linux and mach_absolute_time on macOS, one for all processes of the machine.

    with Sampler(run_dir / "samples.jsonl", hz=2, zero_ns=zero_ns): train()
    python -m workloads.metrics.sampler --out samples.jsonl --hz 2 --pid 1234
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

LOG = logging.getLogger(__name__)
EXIT_S = 0.9


class Sampler:
    """Sample while the context is open, `hz` times a second; 0 starts nothing. Never raises into the workload."""

    def __init__(self, path: Path, hz: float, zero_ns: int, pid: int | None = None) -> None:
        """Write to `path`; `pid` is whose process tree is watched (None: this process)."""
        self.path, self.hz, self.zero_ns = path, hz, zero_ns
        self.watched_pid = os.getpid() if pid is None else pid
        self.pid: int | None = None
        """The sampler's own process, None when there is none."""
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def __enter__(self) -> "Sampler":
        if self.hz > 0:
            try:
                # The session of its own keeps Ctrl-C from it: it ends when the run does, after the run's own shutdown.
                self._process = subprocess.Popen(
                    self._command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, start_new_session=True, env=_env()
                )
                self.pid = self._process.pid
            except Exception as error:  # no telemetry is better than no run
                LOG.warning("%s: no hardware samples, the sampler did not start (%s: %s)", self.path, type(error).__name__, error)
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None or os.getpid() != self._owner:
            return
        early = process.poll()
        try:
            with contextlib.suppress(OSError):
                process.stdin.write(b".")
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            LOG.warning("%s: the sampler did not end within %s s and was killed; its last sample may be missing", self.path, EXIT_S)
        finally:
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
        if early is not None or process.returncode > 0:
            LOG.warning("%s: the sampler ended early (exit code %s); samples after that are missing", self.path, process.returncode)

    def _command(self) -> list[str]:
        import psutil

        command = [sys.executable, "-P", "-m", "workloads.metrics.sampler", "--out", os.path.abspath(self.path)]
        command += ["--hz", str(self.hz), "--zero-ns", str(self.zero_ns), "--parent", str(os.getpid()), "--pid", str(self.watched_pid)]
        with contextlib.suppress(psutil.Error):
            command += ["--pid-started", str(psutil.Process(self.watched_pid).create_time())]
        return command


def _env() -> dict[str, str]:
    """Return the environment with this package importable, wherever the run has changed to."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))}


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
    with contextlib.suppress(OSError):
        os.nice(10)
    try:
        sample(args.out, args.hz, args.zero_ns, args.pid, args.pid_started, args.parent)
    except OSError as error:
        sys.exit(f"sampler: {args.out}: {error}")


if __name__ == "__main__":
    main()
