"""One run directory for every run: opened before the work, readable whatever happens to it.

    with open_run(folder, spec) as run:
        run.append("steps.jsonl", StepRecord(...))
        run.result = RunRecord(...)          # what the run came to

Whoever starts a workload writes <folder>/spec.yaml (the resolved spec) and starts `python -m workloads... --run <folder>`.
"""

import datetime
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.job import EXIT_BAD_SPEC, EXIT_FAILED, NCDEMO_EXIT_FILE, WORKLOAD_INTERRUPTED
from ncdemo.spec.paths import runs_dir
from ncdemo.spec.record import Record
from ncdemo.spec.result import RunRecord, TrainResult
from ncdemo.spec.result_bench import BenchResult
from ncdemo.spec.train import TrainSpec
from workloads.metrics.environment import environment
from workloads.metrics.exporters.end import push_end
from workloads.metrics.exporters.export import this_machine
from workloads.metrics.exporters.live import live
from workloads.metrics.mlflow_key import note_key
from workloads.metrics.mlflow_log import log_model, log_run, resolve_uri
from workloads.metrics.sampler import Sampler
from workloads.stop import Interrupted, StopRequest

log = logging.getLogger("ncdemo")
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Run:
    """An open run directory. Every *_s stamp in it counts from `zero_ns` (time.perf_counter_ns)."""

    def __init__(self, folder: Path, spec: TrainSpec | BenchSpec, clock_s: float = 0.0) -> None:
        """`clock_s`: what the run's clock already shows, of attempts before this one."""
        self.folder = folder
        self.zero_ns = time.perf_counter_ns() - round(clock_s * 1e9)
        self.train: TrainResult | None = None
        self.bench: BenchResult | None = None
        started = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=clock_s)).isoformat(timespec="milliseconds")
        self._record = RunRecord(
            kind=spec.kind,
            run_id=folder.name,
            name=spec.name,
            status="running",
            spec_hash=spec.spec_hash(),
            started_at=started,
            instance=this_machine(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        note_key(folder)
        self._write_result()

    def now(self) -> float:
        """Return seconds since the run's clock zero."""
        return (time.perf_counter_ns() - self.zero_ns) / 1e9

    def append(self, file: str, record: Record) -> None:
        """Add one JSON line; it is in the file when this returns, so a killed run keeps it."""
        with (self.folder / file).open("a", encoding="utf-8") as lines:
            lines.write(record.model_dump_json() + "\n")

    def close(self, status: Literal["finished", "failed", "interrupted"], reason: str | None = None) -> None:
        """Write how the run ended."""
        changes = {"status": status, "reason": reason, "duration_s": self.now(), "train": self.train, "bench": self.bench}
        self._record = self._record.model_copy(update=changes)
        self._write_result()

    def _write_result(self) -> None:
        write_json(self.folder / "result.json", self._record.model_dump(mode="json"))


@contextmanager
def open_run(folder: Path, spec: TrainSpec | BenchSpec, *, stop: StopRequest | None = None, clock_s: float = 0.0) -> Iterator[Run]:
    """Open a run directory, sample the machine and export metrics beside the body, and log the end to MLflow.

    However the body ends, result.json says so. SIGTERM and SIGINT end it as interrupted: when `stop` says, or without one at once.
    """
    if stop is None:
        StopRequest().install()
    run, finished = Run(folder, spec, clock_s), False
    try:
        write_json(folder / "environment.json", environment(spec.spec_hash()))
        with live(folder, spec.telemetry), Sampler(folder / "samples.jsonl", spec.telemetry.sample_hz, run.zero_ns):
            yield run
        run.close("finished")
        finished = True
    except Interrupted as stopped:
        run.close("interrupted", f"stopped by {stopped}; what was written until then is whole. Start the same command again")
        leave(WORKLOAD_INTERRUPTED)
    except BaseException as error:
        run.close("failed", str(error) if isinstance(error, SpecError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        push_end(folder, spec.telemetry, finished=finished)
        uri = resolve_uri(spec.telemetry.mlflow_uri, runs_dir())
        if uri:
            logged = log_run(
                folder, uri, timeout_s=120.0 if finished else 10.0
            )  # a run that is being stopped has no time for a slow server
            if finished and logged:
                log_model(folder, uri, logged, spec.telemetry.mlflow_model)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def progress(phase: str, done: float, total: int, **figures: float) -> None:
    """Tell whoever started this process how far it is: one JSON line on stdout, when NCDEMO_PROGRESS=1."""
    if os.environ.get("NCDEMO_PROGRESS") == "1":
        # In one write, as threads may tell too.
        sys.stdout.write(json.dumps({"phase": phase, "done": done, "total": total, **figures}) + "\n")
        sys.stdout.flush()


def main_guard(main: Any) -> None:
    """Run a workload's main: logs on stderr; a user's mistake is one line and exit 2, any other error a traceback and exit 1."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LOG_FORMAT)
    try:
        main()
    except SpecError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        leave(EXIT_BAD_SPEC)
    except Interrupted:
        leave(WORKLOAD_INTERRUPTED)
    except Exception:
        traceback.print_exc()
        leave(EXIT_FAILED)


def leave(code: int) -> NoReturn:
    """Exit with a code, noted where a launcher in between can't change it."""
    if note := os.environ.get(NCDEMO_EXIT_FILE):
        with suppress(OSError), open(note, "a") as file:
            file.write(f"{code}\n")
    sys.exit(code)
