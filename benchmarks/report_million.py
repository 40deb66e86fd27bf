"""What the report of a long run takes, and its page in a browser. Bars: a million samples in 5 s and 500 MB, open in 2 s.

Writes such a run, starts `ncdemo report` on it as a process of its own, and opens the page in headless Chromium, where one is installed.

    python -m benchmarks.report_million --samples 1000000 --png page.png
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.machine import machine
from ncdemo.spec import TrainSpec, dump_spec
from ncdemo.spec.result import RunRecord, Sample, StepRecord
from tests.browser import Chromium, find

SECONDS, BYTES, OPEN_S = 5.0, 500e6, 2.0
EVERY_S = 0.05
"""How often memory is looked at."""
# Until the page is drawn: two frames after its load event.
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() / 1000))))"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_million", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000, help="hardware samples of the run (default: 1000000)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs in each sample, with all fields (default: 1)")
    parser.add_argument("--png", type=Path, help="write a picture of the page here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "long", args.samples, args.gpus)
        page = Path(folder) / "report.html"
        about = {"samples": args.samples, "gpus": args.gpus, "samples_bytes": (run / "samples.jsonl").stat().st_size}
        found = {**about, **report(run, page), **(browse(page, args.png) if find() else {"open_s": None}), **machine()}
    print(json.dumps(found, indent=1))
    met = found["wall_s"] <= SECONDS and found["peak_bytes"] <= BYTES and (found["open_s"] or 0) <= OPEN_S
    sys.exit(0 if met else f"a bar is missed: {SECONDS:g} s, {BYTES / 1e6:g} MB, open in {OPEN_S:g} s")


def write_run(folder: Path, count: int, gpus: int) -> Path:
    """Write a finished training run, sampled twice a second: one reading like the next but for time, load and what counts up."""
    folder.mkdir()
    spec = TrainSpec()
    (folder / "spec.yaml").write_text(dump_spec(spec))
    rates = {f"{what}_bytes_per_s": 1234.5 for what in ("disk_read", "disk_write", "net_recv", "net_sent")}
    sample = Sample(time_s=0, process_cpu_pct=180.1, process_rss_bytes=2345678901, memory_used_bytes=5678901234, **rates)
    host = sample.model_dump(mode="json", include={"process_cpu_pct", "process_rss_bytes", "memory_used_bytes", *rates})
    tail = json.dumps(host, separators=(",", ":")).removeprefix("{").removesuffix("}")
    with (folder / "samples.jsonl").open("w") as file:
        for i in range(count):
            head = f'{{"tick":{i},"late_s":7e-05,"time_s":{i / 2},"cpu_pct":{i * 7919 % 1000 / 10},{tail},"gpus":['
            file.write(head + ",".join(gpu_row(index, i) for index in range(gpus)) + "]}\n")
    with (folder / "steps.jsonl").open("w") as file:
        for step in range(1, 1001):
            end_s = step * count / 2 / 1000
            figures = {"learning_rate": 1e-4, "grad_norm": 1, "tokens": 9000, "target_tokens": 3000, "examples": 8, "tokens_per_s": 9000}
            file.write(StepRecord(step=step, end_s=end_s, step_time_s=1, loss=2 + 1 / step, **figures).model_dump_json() + "\n")
    about = {"kind": "train", "run_id": "long", "name": "long", "spec_hash": spec.spec_hash(), "duration_s": count / 2}
    record = RunRecord(**about, status="finished", started_at="2026-11-24T01:00:00.000+00:00")
    (folder / "result.json").write_text(record.model_dump_json())
    return folder


def gpu_row(index: int, i: int) -> str:
    """Return a GPU of sample i as the sampler writes it: slow fields in every other sample, NVLink at 90 GB/s."""
    slow = (
        f',"pcie_tx_bytes_per_s":{1.2e9 + i % 977 * 1e6},"pcie_rx_bytes_per_s":2.5e9,"nvlink_tx_bytes":{i * 45_000_000_000},'
        f'"nvlink_rx_bytes":{i * 45_000_000_000},"ecc_corrected":3,"ecc_uncorrected":0,'
        '"processes":[{"pid":4711,"memory_bytes":73014444032}]'
    )
    reasons = '["hw_thermal"]' if i % 5000 < 50 else '["power_cap"]' if i % 7 else "[]"
    return (
        f'{{"index":{index},"error":null,"utilization_pct":{90 + i % 11},"memory_used_bytes":75161927680,'
        f'"power_w":{380.5 + i % 301},"energy_j":{9e6 + i * 200},"temperature_c":61,"sm_clock_hz":1785000000.0,'
        f'"memory_clock_hz":2619000000.0,"throttle_reasons":{reasons},"xids":{[63] if i % 250_000 == 99_999 else []}'
        f"{slow if i % 2 else ''}}}"
    )


def report(run: Path, page: Path) -> dict[str, float]:
    """Return what the command takes, its start included: wall time, and CPU time and the most memory of all its processes together."""
    began_s, most = time.perf_counter(), 0
    command = subprocess.Popen([sys.executable, "-m", "ncdemo", "report", str(run), "-o", str(page)], stdout=subprocess.DEVNULL)
    while command.poll() is None:
        most = max(most, _memory(command.pid))
        with suppress(subprocess.TimeoutExpired):
            command.wait(EVERY_S)
    wall_s = time.perf_counter() - began_s
    if command.returncode:
        sys.exit(f"ncdemo report failed (exit {command.returncode})")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": wall_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_bytes": most,
        "largest_process_bytes": used.ru_maxrss * 1024,
        "page_bytes": page.stat().st_size,
        "load_average": os.getloadavg()[0],
    }


def _memory(pid: int) -> int:
    """Return what a process and its children hold: pages that n of them share count as one n-th in each (PSS)."""
    held = 0
    with suppress(psutil.Error):
        for process in (parent := psutil.Process(pid), *parent.children()):
            held += process.memory_full_info().pss
    return held


def browse(page: Path, png: Path | None) -> dict[str, float]:
    """Return how long after it was asked for the page was drawn in an open browser, and what it complained of."""
    with Chromium() as chromium:
        visit = chromium.visit(page.as_uri(), png=png, script=DRAWN)
    return {"open_s": visit.value, "page_errors": len(visit.errors)}


if __name__ == "__main__":
    main()
