"""Runs of this machine: what their folders and their processes say.

place = Local(runs_dir())
[job.state for job in place.jobs()]     # running only if the process that the run recorded is still that process
"""

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ncdemo.operate.job import Job, State, Tell
from ncdemo.spec.base import SpecError
from ncdemo.spec.job import EXIT_BAD_SPEC, STOP_S, WORKLOAD_INTERRUPTED
from ncdemo.spec.run_folder import EXIT_FILE, LOG_FILE, PROCESS_FILE, RESULT_FILE, SPEC, node_folder, running_process

FOLLOW_S = 0.2
PATIENCE_S = STOP_S + 10
"""From SIGTERM on: the workload's own time to stop, and a little for the machine."""
MARKS = (RESULT_FILE, SPEC, PROCESS_FILE)
"""A folder with one of them is a run directory."""
CHUNK_BYTES = 1 << 16


class Local:
    """The run directories below a folder, also those of `ncdemo demo`, which lie one folder deeper."""

    def __init__(self, runs: Path, resume: Callable[[Path], None] | None = None) -> None:
        """`resume` starts a run directory's workload again, in the foreground."""
        self._runs, self._resume = runs, resume
        self.shown, self.listing = f"in {runs} (NCDEMO_RUNS)", "ncdemo jobs ls"

    def folder(self, job: Job) -> Path:
        return self._runs / job.name

    def jobs(self) -> list[Job]:
        folders = [path for pattern in ("*", "*/*") for path in self._runs.glob(pattern) if is_run(path)]
        return sorted(
            (read_job(path, path.relative_to(self._runs).as_posix()) for path in folders),
            key=lambda job: job.started_at or "",
            reverse=True,
        )

    def logs(self, job: Job, *, follow: bool, tail: int | None, node: int, tell: Tell) -> Iterator[bytes]:
        folder = self.folder(job)
        path = node_folder(folder, node) / LOG_FILE
        if not path.exists() and not (follow and job.state == "running"):
            raise SpecError(f"{path}: no such file, so this run has said nothing; see its state with: ncdemo jobs ls")
        return follow_file(path, tail, lambda: follow and not read_job(folder, job.name).ended)

    def cancel(self, job: Job, tell: Tell) -> str:
        folder = self.folder(job)
        if job.ended:
            raise SpecError(f"{job.name}: is {job.state}, so there is nothing to cancel; see what runs with: ncdemo jobs ls")
        pid = _process(folder, job.name, "so it isn't certain which process to end; find it with: pgrep -f " + str(folder))
        if pid is None:
            raise SpecError(
                f"{job.name}: its process is gone, so there is nothing to cancel; start it again with: ncdemo jobs retry {job.name}"
            )
        # Its group where it leads one, for a launcher's ranks; a job has its own way to tell its workload.
        told = -pid if os.getpgid(pid) == pid and os.getsid(pid) == pid else pid
        os.kill(told, signal.SIGTERM)
        tell(f"{job.name}: asked process {pid} to stop (SIGTERM); it may take {STOP_S:.0f} s to save what it can")
        until = time.monotonic() + PATIENCE_S
        while _alive(folder):
            if time.monotonic() > until:
                raise SpecError(f"{job.name}: process {pid} still runs after {PATIENCE_S:.0f} s; end it with: kill -9 -- {told}")
            time.sleep(0.1)
        return f"{job.name}: {read_job(folder, job.name).state}"

    def retry(self, job: Job, tell: Tell) -> str:
        if job.state in ("running", "finished"):
            raise SpecError(
                f"{job.name}: is {job.state}, so it isn't started again; cancel it first"
                if job.state == "running"
                else f"{job.name}: is finished; a new run is made by: ncdemo train or ncdemo bench run"
            )
        assert self._resume
        self._resume(self.folder(job))
        return str(self.folder(job))


def is_run(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in MARKS)


def read_job(folder: Path, name: str) -> Job:
    """Return what a run directory and its process come to."""
    record = _record(folder)
    where, alive = "", None
    try:
        pid = running_process(folder)
        alive, where = pid is not None, f"process {pid}" if pid else ""
        unsure = ""
    except ValueError as error:
        unsure = str(error)
    status, reason = record.get("status"), record.get("reason") or ""
    codes = _codes(folder)
    state: State
    if alive:
        state, detail = "running", ""
    elif status in ("finished", "failed", "interrupted"):
        state, detail = status, reason
    elif codes:
        state, detail = ("interrupted" if codes <= {WORKLOAD_INTERRUPTED} else "failed"), _last_error(folder)
    elif alive is False:
        state, detail = "killed", f"its process is gone and left no word; go on with: ncdemo jobs retry {name}"
    else:
        state, detail = "unknown", unsure
    started = record.get("started_at") or _made_at(folder)
    code = EXIT_BAD_SPEC if state == "failed" and EXIT_BAD_SPEC in codes else None
    return Job(name, state, record.get("kind") or _kind(folder), started, detail, where or str(folder), code)


def follow_file(path: Path, tail: int | None, more: Callable[[], bool]) -> Iterator[bytes]:
    """Yield a file from its beginning, or its last lines, and what is added while `more` says so."""
    while not path.exists() and more():
        time.sleep(FOLLOW_S)
    if not path.exists():
        return
    with path.open("rb") as file:
        if tail is not None:
            yield b"".join(deque(file, maxlen=tail))
        while True:
            goes_on = more()  # asked before the last read: what is written until then is read
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
            if not goes_on:
                return
            time.sleep(FOLLOW_S)


def _process(folder: Path, name: str, remedy: str) -> int | None:
    try:
        return running_process(folder)
    except ValueError as error:
        raise SpecError(f"{name}: {error}, {remedy}") from None


def _alive(folder: Path) -> bool:
    with suppress(ValueError):
        return running_process(folder) is not None
    return False


def _record(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        data = json.loads((folder / RESULT_FILE).read_text())
        return data if isinstance(data, dict) else {}
    return {}


def _codes(folder: Path) -> set[int]:
    with suppress(OSError, ValueError):
        return {int(line) for line in (folder / EXIT_FILE).read_text().split()}
    return set()


def _last_error(folder: Path) -> str:
    with suppress(OSError):
        said = [line for line in (folder / LOG_FILE).read_text(errors="replace").splitlines() if line.startswith("Error: ")]
        return said[-1].removeprefix("Error: ") if said else ""
    return ""


def _kind(folder: Path) -> str | None:
    """Return the spec's kind without checking the spec: a run directory may be of another version."""
    with suppress(OSError):
        for line in (folder / SPEC).read_text(errors="replace").splitlines():
            if line.startswith("kind:"):
                return line.partition(":")[2].strip()
    return None


def _made_at(folder: Path) -> str | None:
    import datetime

    for name in MARKS:
        with suppress(OSError):
            made = (folder / name).stat().st_mtime
            return datetime.datetime.fromtimestamp(made, datetime.UTC).isoformat(timespec="milliseconds")
    return None
