"""The benchmark's process: opens the run directory, goes on where an attempt before it stopped, and measures the sweep.

    python -m workloads.inference.bench --run runs/bench      # runs/bench/spec.yaml says what to measure

Started again on the same folder, after whatever end, it measures the cells that its ledger lacks (ledger.py).
"""

import argparse
import json
from pathlib import Path

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.ledger import CELLS_FILE, read_ledger
from ncdemo.spec.load import load_spec
from workloads.inference.ledger import Ledger
from workloads.inference.sweep import Sweep
from workloads.run import Run, main_guard, open_run


def bench(spec: BenchSpec, run: Run) -> None:
    """Measure every cell of the sweep that is not finished yet."""
    ledger = Ledger(run.folder, spec.spec_hash())
    try:
        Sweep(spec, run, ledger).measure()
    finally:
        ledger.close()


def clock_s(folder: Path) -> float:
    """Return what the run's clock showed last, over all attempts before this one; a torn last sample is cut off."""
    entries = read_ledger(folder / CELLS_FILE).entries
    latest = entries[-1].end_s if entries else 0.0
    samples = folder / "samples.jsonl"
    if samples.exists():
        whole = samples.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        with samples.open("r+b") as file:
            file.truncate(len(whole))
        if lines := whole.splitlines():
            latest = max(latest, json.loads(lines[-1])["time_s"])
    return latest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run directory with the resolved spec.yaml")
    folder = parser.parse_args().run
    spec = load_spec(folder / "spec.yaml", BenchSpec)
    with open_run(folder, spec, clock_s=clock_s(folder)) as run:
        bench(spec, run)


if __name__ == "__main__":
    main_guard(main)
