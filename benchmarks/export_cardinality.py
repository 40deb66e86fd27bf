"""What a Pushgateway holds after very many runs: runs, groups, series, and the values of each label. Bar: bounded by `--keep`.

Starts a Pushgateway of its own (Debian's prometheus-pushgateway) and exports one run directory under that many run ids.

    python -m benchmarks.export_cardinality --runs 10000
"""

import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import machine
from ncdemo.spec import TrainSpec, dump_spec
from ncdemo.spec.follow import RunState
from ncdemo.spec.result import GpuSample, RunRecord, Sample, StepRecord
from workloads.metrics.exporters.export import KEEP_RUNS, push, retire_oldest
from workloads.metrics.exporters.gateway import Gateway
from workloads.metrics.exporters.spool import Spool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_cardinality", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="runs to export (default: 10000)")
    parser.add_argument("--keep", type=int, default=KEEP_RUNS, help=f"runs that the gateway keeps (default: {KEEP_RUNS})")
    parser.add_argument("--within-s", type=float, default=float("inf"), help="stop after so many seconds, and say how many runs it was")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _gateway() as (url, pid):
        found = measure(Path(folder), url, args.runs, args.keep, args.within_s)
        used = psutil.Process(pid).cpu_times()
        about = {"gateway_cpu_s": used.user + used.system, "gateway_peak_rss_bytes": _peak_rss(pid)}
        print(json.dumps({**found, **about, "own_peak_rss_bytes": _peak_rss(os.getpid()), **machine()}, indent=1))


def measure(folder: Path, url: str, runs: int, keep: int, within_s: float = float("inf")) -> dict:
    """Export `runs` runs; return the most that the gateway held at any 500th of them, and how long it took."""
    state, gateway = _run(folder / "run"), Gateway(url)
    spool = Spool(folder / "spool", gateway)
    most: dict[str, int] = defaultdict(int)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for number in range(runs):
        state.record = state.record.model_copy(update={"run_id": f"run-{number:05d}", "spec_hash": f"{number:012x}"})
        assert push(state, spool, within_s=10)
        retire_oldest(gateway, keep)
        late = time.perf_counter() - began_s > within_s
        if number % 500 == 499 or number == runs - 1 or late:
            for name, count in _held(url).items():
                most[name] = max(most[name], count)
        if late:
            runs = number + 1
            break
    took_s = time.perf_counter() - began_s
    about = {"runs": runs, "keep": keep, "took_s": took_s, "s_per_export": took_s / runs, "own_cpu_s": time.process_time() - began_cpu_s}
    return {**about, "most_held": dict(most), "spooled": len(spool.waiting())}


def _peak_rss(pid: int) -> int:
    """Return the most memory that a process had resident, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")))


def _held(url: str) -> dict[str, int]:
    """Count the gateway's series of ours, and the values of each label."""
    text = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
    found = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name.startswith("ncdemo_")]
    labels = defaultdict(set)
    for sample in found:
        for name, value in sample.labels.items():
            labels[name].add(value)
    return {"series": len(found), "bytes": len(text), **{f"values of {name}": len(values) for name, values in sorted(labels.items())}}


def _run(folder: Path) -> RunState:
    """Return a finished training run with eight GPUs."""
    folder.mkdir()
    spec = TrainSpec()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    step = StepRecord(
        step=1, end_s=1, step_time_s=1, loss=2, learning_rate=1e-4, grad_norm=1, tokens=9, target_tokens=9, examples=1, tokens_per_s=9
    )
    (folder / "steps.jsonl").write_text(step.model_dump_json() + "\n")
    gpus = [
        GpuSample(index=i, utilization_pct=90, memory_used_bytes=1 << 30, power_w=500, energy_j=1e6, temperature_c=60) for i in range(8)
    ]
    (folder / "samples.jsonl").write_text(Sample(time_s=1, cpu_pct=50, memory_used_bytes=1 << 30, gpus=gpus).model_dump_json() + "\n")
    record = RunRecord(kind="train", run_id="r", name="demo", status="finished", spec_hash="0", started_at="2026-11-24T01:00:00.000+00:00")
    (folder / "result.json").write_text(record.model_dump_json())
    state = RunState(folder)
    state.update()
    return state


@contextmanager
def _gateway():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}", "--persistence.file=", "--log.level=error"]
    with subprocess.Popen(command, env=os.environ) as process:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"{url}/-/ready", timeout=1)
                    break
                except OSError:
                    time.sleep(0.05)
            yield url, process.pid
        finally:
            process.kill()


if __name__ == "__main__":
    main()
