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
from ncdemo.spec.paths import NCDEMO_RUNS, runs_dir
from ncdemo.spec.record import Record
from ncdemo.spec.result import RunRecord, TrainResult
from ncdemo.spec.result_bench import BenchResult
from ncdemo.spec.run_folder import run_id
from ncdemo.spec.train import TrainSpec
from workloads.metrics.environment import environment
from workloads.metrics.exporters.end import push_end
from workloads.metrics.exporters.export import this_machine
from workloads.metrics.exporters.live import live
from workloads.metrics.mlflow_key import note_key
from workloads.metrics.mlflow_log import log_model, log_run, resolve_uri
from workloads.metrics.sampler import Sampler
from workloads.records import Records
from workloads.room import WAIT_S, NoRoom, lacks_room, may_pass, remedy
from workloads.said import Stderr
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
        self.records = Records(folder, log.warning)
        started = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=clock_s)).isoformat(timespec="milliseconds")
        self._record = RunRecord(
            kind=spec.kind,
            run_id=run_id(folder, spec.kind),
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
        """Add one JSON line to a file of the run (records.py)."""
        self.records.append(file, record)

    def close(self, status: Literal["finished", "failed", "interrupted"], reason: str | None = None) -> None:
        """Write how the run ended."""
        changes = {"status": status, "reason": reason, "duration_s": self.now(), "train": self.train, "bench": self.bench}
        self._record = self._record.model_copy(update={**changes, "disk_full": self.records.outages(self.zero_ns)})
        try:
            self._write_result()
        except OSError as error:
            if not lacks_room(error):
                raise
            self.records.reserve.free()
            self._write_result()
        self.records.reserve.free()

    def _write_result(self) -> None:
        write_json(self.folder / "result.json", self._record.model_dump(mode="json"))


@contextmanager
def open_run(folder: Path, spec: TrainSpec | BenchSpec, *, stop: StopRequest | None = None, clock_s: float = 0.0) -> Iterator[Run]:
    """Open a run directory, sample the machine and export metrics beside the body, and log the end to MLflow.

    However the body ends, result.json says so. SIGTERM and SIGINT end it as interrupted: when `stop` says, or without one at once.
    """
    if stop is None:
        StopRequest().install()
    with _room_for(folder):
        run, finished = Run(folder, spec, clock_s), False
    try:
        with _room_for(folder):
            run.records.reserve.keep()
            write_json(folder / "environment.json", environment(spec.spec_hash()))
        with live(folder, spec.telemetry), Sampler(folder / "samples.jsonl", spec.telemetry.sample_hz, run.zero_ns):
            try:
                yield run
            except BaseException:
                _last_words(run)
                raise
            run.records.settle(WAIT_S)
        run.close("finished")
        finished = True
    except Interrupted as stopped:
        _close(run, "interrupted", f"stopped by {stopped}; what was written until then is whole, and ncdemo jobs retry goes on with it")
        leave(WORKLOAD_INTERRUPTED)
    except BaseException as error:
        _close(run, "failed", str(error) if isinstance(error, SpecError | NoRoom) else f"{type(error).__name__}: {error}")
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


@contextmanager
def _room_for(folder: Path) -> Iterator[None]:
    """Say what to do about a disk that is too full, or read-only, to begin a run on."""
    try:
        yield
    except OSError as error:
        if may_pass(error):
            raise NoRoom(f"{folder}: {error.strerror}; {remedy(error)}, or set {NCDEMO_RUNS} to a folder on a disk with room") from None
        raise


def _last_words(run: Run) -> None:
    """Write what a full disk held back of a run that ends for another reason, which goes on to be told."""
    try:
        run.records.settle(0.0)
    except NoRoom as lost:
        log.error("%s", lost)


def _close(run: Run, status: Literal["failed", "interrupted"], reason: str) -> None:
    """Write how a run ended that didn't finish; a disk without room for that must not hide the reason."""
    try:
        run.close(status, reason)
    except OSError as error:
        log.error("%s: how the run ended could not be written (%s): it is %s, %s", run.folder, error, status, reason)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)  # on a full disk half a file takes what little room there is
        raise


def progress(phase: str, done: float, total: int, **figures: float | str) -> None:
    """Tell whoever started this process how far it is: one JSON line on stdout, when NCDEMO_PROGRESS=1."""
    if os.environ.get("NCDEMO_PROGRESS") == "1":
        # In one write, as threads may tell too.
        sys.stdout.write(json.dumps({"phase": phase, "done": done, "total": total, **figures}) + "\n")
        sys.stdout.flush()


def main_guard(main: Any) -> None:
    """Run a workload's main: logs on stderr; a user's mistake or a full disk is one line, any other error a traceback."""
    logging.basicConfig(level=logging.INFO, handlers=[Stderr()], format=LOG_FORMAT)
    try:
        main()
    except SpecError as mistake:
        _say(f"Error: {mistake}")
        leave(EXIT_BAD_SPEC)
    except NoRoom as full:
        _say(f"Error: {full}")
        leave(EXIT_FAILED)
    except Interrupted:
        leave(WORKLOAD_INTERRUPTED)
    except Exception:
        _say(traceback.format_exc().rstrip())
        leave(EXIT_FAILED)


def _say(text: str) -> None:
    """Say it on stderr, which may be a file on a full disk: the exit code comes all the same."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def leave(code: int) -> NoReturn:
    """Exit with a code, noted where a launcher in between can't change it."""
    if note := os.environ.get(NCDEMO_EXIT_FILE):
        with suppress(OSError), open(note, "a") as file:
            file.write(f"{code}\n")
    sys.exit(code)
