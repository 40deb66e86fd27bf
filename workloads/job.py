"""One spec to its end on one node of a job, its results copied to storage. A container reaches it by workloads.entrypoint.

    NCDEMO_JOB=tune-3f2a python -m workloads.job --spec /etc/ncdemo/run.yaml

Ends with 0 (done, or done before), 1 (failed), 2 (a mistake in the spec: never worth a retry) or 75 (stopped: start it again).
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.job import (
    EXIT_BAD_SPEC,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    NCDEMO_EXIT_FILE,
    NCDEMO_RESULTS_URI,
    NCDEMO_SCHEDULED_EVENTS_URL,
    SPEC_FILE,
    STOP_S,
    WORKLOAD_INTERRUPTED,
    Node,
    job_name,
    load_run,
    workload_command,
    workload_env,
)
from ncdemo.spec.paths import runs_dir
from ncdemo.spec.run_folder import EXIT_FILE, node_folder, note_eviction
from ncdemo.spec.train import TrainSpec
from workloads.attempt import begin, finished, last_error, noted_codes, read_record, settle
from workloads.child import Child, Stop
from workloads.preemption import watch
from workloads.run import LOG_FORMAT
from workloads.storage import Storage
from workloads.tell import Telling
from workloads.upload import Mirror

LOG = logging.getLogger("ncdemo.job")
UPLOAD_S = 5.0
"""Of the time to stop in, kept for the evidence, and to tell of the end."""
TELL_S, TELL_STOPPED_S = 60.0, 10.0
"""MLflow's time to take the end of a workload that was killed: by itself, or when the job is being stopped."""


def main(ready: Callable[[TrainSpec | BenchSpec], None] | None = None, prog: str = "python -m workloads.job") -> int:
    """Run the job of the command line's spec; `ready` sees the spec before anything is done, and may refuse with SpecError."""
    stop = Stop()
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, default=Path(SPEC_FILE), help=f"the resolved spec (default: {SPEC_FILE})")
    path = parser.parse_args().spec
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LOG_FORMAT)
    try:
        spec, node = load_run(path), Node.of(os.environ)
        job = job_name(spec, os.environ)
        watch(os.environ.get(NCDEMO_SCHEDULED_EVENTS_URL), partial(_preempted, _folder(job, node), stop))
        if ready:
            ready(spec)
        if isinstance(spec, BenchSpec) and node.rank > 0:
            LOG.info("a benchmark runs on node 0 alone: nothing to do on node %d", node.rank)
            return EXIT_DONE
        uri = os.environ.get(NCDEMO_RESULTS_URI)
        return _job(job, spec, node, Storage(uri) if uri else None, stop)
    except SpecError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return EXIT_BAD_SPEC


def _job(job: str, spec: TrainSpec | BenchSpec, node: Node, storage: Storage | None, stop: Stop) -> int:
    """Run the job, unless it has run; return the exit code."""
    first, folder = runs_dir().absolute() / job, _folder(job, node)
    if storage and finished(storage.record(job), spec, f"{storage.shown}/{job}"):
        return EXIT_DONE
    done = finished(read_record(first), spec, str(first))
    if not done:
        begin(folder, spec)
    mirror = Mirror(folder, storage) if storage else None
    if mirror:
        mirror.start()
    code, telling = (EXIT_DONE, None) if done else _run(folder, spec, node, stop, STOP_S - (UPLOAD_S if mirror else 0))
    whole = mirror.finish(stop) if mirror else True
    if telling:
        telling.wait(stop, STOP_S)
    if not whole and code == EXIT_DONE:
        return EXIT_FAILED if stop.since is None else EXIT_INTERRUPTED
    return code


def _folder(job: str, node: Node) -> Path:
    return node_folder(runs_dir().absolute() / job, node.rank)


def _preempted(folder: Path, stop: Stop, name: str) -> None:
    note_eviction(folder)  # before the workload ends, so that its last push tells of it
    stop.ask(name)


def _run(folder: Path, spec: TrainSpec | BenchSpec, node: Node, stop: Stop, patience_s: float) -> tuple[int, Telling | None]:
    """Run the workload of this node to its end, and see that the record says how it ended.

    Return the job's exit code, and what tells others of an end that the workload couldn't tell of itself.
    """
    command = workload_command(spec, folder, sys.executable, nodes=node.nodes, node_rank=node.rank, master_addr=node.master_addr)
    env = {**os.environ, **workload_env(spec, nodes=node.nodes), NCDEMO_EXIT_FILE: str(folder / EXIT_FILE), "PYTHONUNBUFFERED": "1"}
    LOG.info("node %d of %d starts %s", node.rank, node.nodes, " ".join(command))
    log = folder / "log.txt"
    said = log.stat().st_size if log.exists() else 0
    code = Child(command, env, log).wait(stop, patience_s) if stop.since is None else WORKLOAD_INTERRUPTED
    codes = {code, *noted_codes(folder)}
    how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    if stop.name and code != 0:
        how += f" after {stop.name}"
    LOG.info("node %d %s", node.rank, how)
    stopped = stop.since is not None or WORKLOAD_INTERRUPTED in codes
    telling = None
    # One that was killed while it told of its end has a record and a negative code.
    if node.rank == 0 and (settle(folder, spec, stopped, how, last_error(log, said)) or code < 0):
        telling = Telling(folder, spec.telemetry, TELL_STOPPED_S if stopped else TELL_S)
        if not stopped:
            telling.wait(stop, STOP_S)  # before the last copy, which then has what it said; a job that is stopped has no time for that
    if code == 0:
        return EXIT_DONE, telling
    if EXIT_BAD_SPEC in codes:
        return EXIT_BAD_SPEC, telling
    return EXIT_INTERRUPTED if stopped else EXIT_FAILED, telling


def leave(status: int) -> NoReturn:
    """End this process at once: Python's own exit would wait for an upload that hangs, beyond the time a node has left."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
