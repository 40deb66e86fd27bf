"""A run directory over several attempts at a job: whether it is finished, how one begins, and that its end is on record.

if not finished(read_record(folder), spec, str(folder)):
    begin(folder, spec)
"""

import logging
import os
from pathlib import Path

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.job import NCDEMO_JOB
from ncdemo.spec.ledger import CELLS_FILE
from ncdemo.spec.load import dump_spec
from ncdemo.spec.result import RunRecord
from ncdemo.spec.run_folder import ENGINES_FILE, EVICTIONS_FILE, EXIT_FILE, note_process
from ncdemo.spec.train import TrainSpec
from workloads.run import LOG_FORMAT, Run, write_json

LOG = logging.getLogger("ncdemo.job")


def finished(record: RunRecord | None, spec: TrainSpec | BenchSpec, where: str) -> bool:
    """Say whether a record is the end of this spec's run. Raise SpecError where this run would replace another's results."""
    if record is None or record.status != "finished":
        return False
    if record.spec_hash != spec.spec_hash():
        raise SpecError(
            f"{where}: holds a finished run of another spec ({record.spec_hash}, this is {spec.spec_hash()}); set {NCDEMO_JOB} to another name"
        )
    LOG.info("%s: this job is finished and isn't run again", where)
    return True


def read_record(folder: Path) -> RunRecord | None:
    """Return what result.json says; None without one that can be read."""
    try:
        return RunRecord.model_validate_json((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None


def begin(folder: Path, spec: TrainSpec | BenchSpec) -> None:
    """Make the run directory.

    Of an attempt before, its key, log, weights and checkpoints stay, samples, the count of evictions, and the finished cells of a benchmark.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = read_record(folder)
    kept = {"samples.jsonl"} if isinstance(spec, TrainSpec) else set()
    if before and before.kind == "bench" and before.spec_hash == spec.spec_hash():
        kept = {"samples.jsonl", "requests.jsonl", CELLS_FILE, ENGINES_FILE}
    if before is None or before.spec_hash == spec.spec_hash():
        kept.add(EVICTIONS_FILE)
    for old in [*folder.glob("*.json"), *folder.glob("*.jsonl"), folder / EXIT_FILE, folder / EVICTIONS_FILE]:
        if old.name not in kept:
            old.unlink(missing_ok=True)
    (folder / "spec.yaml").write_text(dump_spec(spec), encoding="utf-8")
    note_process(folder, os.getpid())
    log = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    log.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.getLogger().addHandler(log)
    if before:
        LOG.info("the attempt before was left %s (%s); starting again", before.status, before.reason or "without a reason")


def noted_codes(folder: Path) -> set[int]:
    """Return the exit codes of ranks that failed, from the file where they note them."""
    try:
        return {int(line) for line in (folder / EXIT_FILE).read_text().split()}
    except (OSError, ValueError):
        return set()


def last_error(log: Path, since: int) -> str | None:
    """Return the last line that says "Error: " after so many bytes of a log, which is what a user needs to know."""
    try:
        with log.open("rb") as file:
            file.seek(since)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("Error: ") for line in reversed(lines) if line.startswith("Error: ")), None)


def settle(folder: Path, spec: TrainSpec | BenchSpec, stopped: bool, how: str, error: str | None) -> bool:
    """Close the record of a workload that couldn't, e.g. because it ran out of memory and was killed; say whether that was so."""
    try:
        return _settle(folder, spec, stopped, how, error)
    except OSError as full:
        LOG.error("%s: how the run ended could not be written (%s); free some space and start the same job again", folder, full)
        return False


def _settle(folder: Path, spec: TrainSpec | BenchSpec, stopped: bool, how: str, error: str | None) -> bool:
    if not (folder / "result.json").exists():
        Run(folder, spec)
    record = read_record(folder)
    if record is None or record.status != "running":
        return False
    ended = {
        "status": "interrupted" if stopped else "failed",
        "reason": error or f"the workload {how} before it could say why; log.txt has its last words",
    }
    write_json(folder / "result.json", record.model_copy(update=ended).model_dump(mode="json"))
    return True
