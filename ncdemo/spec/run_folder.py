"""What a run directory holds beside its records, and how its copy lies in Blob storage: said once, for who writes and who reads it.

    note_process(folder, os.getpid())       # by whoever starts a workload
    process = running_process(folder)       # by `ncdemo jobs`: the pid, if it is still that process

A run's copy is <container>/jobs/<name of the folder>/<path in it>; of the nodes after the first, jobs/<name>-node<rank>. Nothing
is copied whose name begins with a dot or ends in .tmp. The records and log.txt are copied while the run goes on, result.json and
the weights at its end.
"""

import glob
import json
import os
import time
from contextlib import suppress
from pathlib import Path

RESULT_FILE = "result.json"
LOG_FILE = "log.txt"
SPEC = "spec.yaml"
KEY_FILE = "run.key"
"""What tells this run from any other in MLflow, over its attempts."""
ENGINES_FILE = "engines.jsonl"
EXIT_FILE = ".exit"
"""Exit codes of ranks that failed, one a line; see NCDEMO_EXIT_FILE."""
EVICTIONS_FILE = ".evictions"
"""A line for each time that Azure announced to take the machine back, over all attempts in this folder."""
PROCESS_FILE = ".process"
"""Which process runs it, and on which machine; stays when it was killed."""
WEIGHTS = ("checkpoints", "model", "adapter")
"""Folders that are copied at the end alone: they are large, and change while they are written."""

CHECKPOINTS, DATASETS, METRICS, MLFLOW = "checkpoints", "datasets", "metrics", "mlflow"
"""Containers of a stack's storage account; runs are copied to METRICS."""
RESULTS_FOLDER = "jobs"
RESULTS = f"az://{METRICS}/{RESULTS_FOLDER}"
RUN_COMMANDS_FOLDER = "run-commands"
"""In METRICS: what the run commands of VMs said, <job>-<rank>.out and .err."""


def node_folder(folder: Path, rank: int) -> Path:
    """Return the folder of one of a job's nodes; the first one's is the run's."""
    return folder.with_name(f"{folder.name}-node{rank}") if rank else folder


def run_of(folder: Path, rank: int) -> Path:
    """Return the run's folder that one of its nodes' belongs to."""
    return folder.with_name(folder.name.removesuffix(f"-node{rank}")) if rank else folder


def node_samples(folder: Path) -> list[tuple[int, Path]]:
    """Return rank and samples.jsonl of the nodes after the first whose folders lie beside a run's."""
    found = []
    for path in folder.resolve().parent.glob(f"{glob.escape(folder.resolve().name)}-node*/samples.jsonl"):
        rank = path.parent.name.rpartition("-node")[2]
        if rank.isdecimal():
            found.append((int(rank), path))
    return sorted(found)


def is_copied(name: str) -> bool:
    """Say whether a file or folder isn't one that is still being written, nor somebody's own business."""
    return not name.startswith(".") and not name.endswith(".tmp")


def note_eviction(folder: Path) -> None:
    """Write down that Azure announced to take the machine back; nothing where there is no folder yet."""
    with suppress(OSError), (folder / EVICTIONS_FILE).open("a") as lines:
        lines.write(f"{time.time():.3f}\n")


def evictions(folder: Path) -> int:
    """Return how often that happened to a run."""
    try:
        return (folder / EVICTIONS_FILE).read_bytes().count(b"\n")
    except OSError:
        return 0


def note_process(folder: Path, pid: int) -> None:
    """Write down which process runs a run directory."""
    record = {"pid": pid, "started": _started(pid), "machine": _machine()}
    part = folder / f"{PROCESS_FILE}.tmp"
    part.write_text(json.dumps(record) + "\n")
    os.replace(part, folder / PROCESS_FILE)


def running_process(folder: Path) -> int | None:
    """Return the pid of the process that runs a run directory; None when it is gone, or its number means another process by now.

    Raise ValueError when that can't be said: nothing is on record, or it is of another machine, container or boot.
    """
    try:
        record = json.loads((folder / PROCESS_FILE).read_text())
        pid, started, machine = int(record["pid"]), record["started"], record["machine"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError("no process is on record") from None
    if machine != _machine():
        raise ValueError("its process was started on another machine, in another container or before a reboot")
    return pid if started is not None and _started(pid) == started else None


def _started(pid: int) -> str | None:
    """Return when a process started, as the kernel counts it, so that no clock that is set changes it; None when it has ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else after_name[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None


def run_id(folder: Path, kind: str) -> str:
    """Return what names a run where many meet, by its folder; a part of a demo, whose folder says what it is, has the demo's name before."""
    folder = folder.absolute()
    return f"{folder.parent.name}-{folder.name}" if folder.name == kind else folder.name


def _machine() -> str:
    """Return what tells machines, boots and containers apart where numbers of processes are concerned; it names no host."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        import psutil

        return f"boot {psutil.boot_time():.0f}"
