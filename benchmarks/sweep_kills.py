"""kill -9 a sweep at random moments and resume it: does it end with the cells and requests of one that nobody killed?

    python benchmarks/sweep_kills.py --kills 20

Kills fall anywhere between the start of an attempt and its end, so also while a cell is written. A sweep is begun again after
each until it is finished; when it finishes before all kills are spent, the next one starts. Ends with 1 when anything differs.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ncdemo.spec import BenchSpec, dump_spec
from ncdemo.spec.common import ModelRef
from ncdemo.spec.result import RunRecord
from workloads.data.models import model_path

SPEC: dict[str, Any] = {
    "mode": "server",
    "engines": ["echo"],
    "concurrency": [1, 4],
    "arrivals": {"rates_rps": [200.0], "process": "poisson"},
    "prompts": {"count": 12},
    "sampling": {"max_new_tokens": 5},
    "repeats": 30,
    "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
}


def attempt(folder: Path, kill_after_s: float | None) -> bool:
    """Run the sweep; return whether it was killed."""
    command = [sys.executable, "-m", "workloads.inference.bench", "--run", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            code = process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True
    if code:
        raise SystemExit(f"{folder}: ended with {code}; see its log.txt")
    return False


def new_run(folder: Path) -> Path:
    folder.mkdir()
    models = [{"name": str(model_path(ModelRef())), "label": "m"}]
    (folder / "spec.yaml").write_text(dump_spec(BenchSpec.model_validate_json(json.dumps({**SPEC, "models": models}))))
    return folder


def facts(folder: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the cells in order and the requests, each by what names it and how it ended."""
    record = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert record.bench
    requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    return (
        [(c.subject, c.model, c.setting, c.repeat, c.requests, c.failed, c.output_tokens) for c in record.bench.cells],
        sorted((r["setting"], r["repeat"], r["index"], r["ok"], r["output_tokens"]) for r in requests),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dice, kills, sweeps, resumed_cells = random.Random(args.seed), 0, 0, []
    with tempfile.TemporaryDirectory() as scratch:
        whole = new_run(Path(scratch) / "whole")
        start = time.perf_counter()
        attempt(whole, None)
        took_s, expected = time.perf_counter() - start, facts(whole)
        while kills < args.kills:
            sweeps += 1
            folder = new_run(Path(scratch) / f"killed-{sweeps}")
            while attempt(folder, dice.uniform(0.3, took_s) if kills < args.kills else None):
                kills += 1
                ledger = folder / "cells.jsonl"
                resumed_cells.append(max(ledger.read_bytes().count(b"\n") - 1, 0) if ledger.exists() else 0)
            if facts(folder) != expected:
                raise SystemExit(f"sweep {sweeps} differs from the undisturbed one")
    print(
        f"{kills} kills over {sweeps} sweeps of {len(expected[0])} cells and {len(expected[1])} requests: all ended as the undisturbed one"
    )
    print(f"cells already in the ledger at each kill: {resumed_cells}")


if __name__ == "__main__":
    main()
