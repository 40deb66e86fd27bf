"""The seam between who starts a run and what runs: container paths, environment, exit codes and commands, each said once.

    workload_command(spec, folder, sys.executable, nodes=2, node_rank=1, master_addr="tune-0.tune")

A Kubernetes Job or a systemd unit starts `job_command()` on each node; that, and the command line, start a workload from here.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.load import load_spec, read_text
from ncdemo.spec.paths import NCDEMO_CACHE, NCDEMO_RUNS
from ncdemo.spec.read import read
from ncdemo.spec.show import shown
from ncdemo.spec.train import TrainSpec

__all__ = ["NCDEMO_CACHE", "NCDEMO_RUNS"]  # the two that the command line reads as well

SPEC_FILE = "/etc/ncdemo/run.yaml"
RUNS_DIR = "/runs"
SCRATCH_DIR = "/scratch"
FILES_DIR = "/files"
PORT = 29500
"""Where the ranks of several nodes meet, on node 0."""

NCDEMO_JOB = "NCDEMO_JOB"
"""The job's name with a hash of what it runs; also its run directory's name (unset: the spec's name and hash)."""
NCDEMO_NODES = "NCDEMO_NODES"
NCDEMO_NODE_RANK = "NCDEMO_NODE_RANK"
"""Unset: JOB_COMPLETION_INDEX, which Kubernetes gives the pods of an Indexed Job; else 0."""
NCDEMO_MASTER_ADDR = "NCDEMO_MASTER_ADDR"
"""Name or address of node 0."""
NCDEMO_RESULTS_URI = "NCDEMO_RESULTS_URI"
"""An fsspec URL, e.g. az://metrics/jobs; each run directory becomes a folder in it (unset: nothing is uploaded)."""
NCDEMO_STORAGE_ACCOUNT = "NCDEMO_STORAGE_ACCOUNT"
"""The storage account of an az:// URL."""
NCDEMO_CHECKPOINT_URI = "NCDEMO_CHECKPOINT_URI"
"""An fsspec URL, e.g. az://checkpoints; a run's checkpoints go to a folder in it (unset: into the run directory)."""
NCDEMO_PUSHGATEWAY = "NCDEMO_PUSHGATEWAY"
"""URL of the Prometheus Pushgateway that `telemetry.pushgateway: default` means (unset: none)."""
APPLICATIONINSIGHTS_CONNECTION_STRING = "APPLICATIONINSIGHTS_CONNECTION_STRING"
"""Which resource `telemetry.azure_monitor` means; Azure's own name for it. Whoever has it can write there."""
NCDEMO_SCHEDULED_EVENTS_URL = "NCDEMO_SCHEDULED_EVENTS_URL"
"""Azure's Scheduled Events endpoint of this machine; a `Preempt` there stops the job as SIGTERM does (unset: nobody asks)."""
SCHEDULED_EVENTS_URL = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
"""That of every machine of Azure."""
NCDEMO_VM_SIZE = "NCDEMO_VM_SIZE"
"""Azure's name of the size of this job's nodes, which a run records for its cost (unset: the machine is asked, if it is Azure's)."""
NCDEMO_REGION = "NCDEMO_REGION"
"""The region beside it."""
NCDEMO_EXIT_FILE = "NCDEMO_EXIT_FILE"
"""A file that each rank appends its exit code to when it fails: launchers make every code 1."""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_SPEC = 2
"""A mistake in the spec or the environment: starting again can't help."""
EXIT_INTERRUPTED = 75
"""EX_TEMPFAIL of sysexits.h: a signal stopped the job; start it again."""
WORKLOAD_INTERRUPTED = 130
"""What a workload itself ends with when a signal stopped it."""
STOP_S = 25.0
"""From the signal to the end, upload included. A spot eviction is announced 30 s ahead."""

JOB_MODULE = "workloads.entrypoint"
JOB_ARGS = ("--spec", SPEC_FILE)
LAUNCHER = "workloads.training.launch"
WORKLOADS = {
    "train accelerate": "workloads.training.accelerate",
    "train deepspeed": "workloads.training.deepspeed",
    "train unsloth": "workloads.training.unsloth",
    "bench": "workloads.inference.bench",
}
"""What runs a spec, by its kind; a training run's has its strategy beside it."""
RUNS: dict[str, type[TrainSpec] | type[BenchSpec]] = {"train": TrainSpec, "bench": BenchSpec}
"""The kinds of spec that a job can run."""


@dataclass(frozen=True)
class Node:
    """Which of a job's nodes this one is."""

    nodes: int = 1
    rank: int = 0
    master_addr: str = "127.0.0.1"

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """Read it from the environment, where empty is unset. Raise SpecError for numbers that can't be."""
        rank_name = NCDEMO_NODE_RANK if env.get(NCDEMO_NODE_RANK) else "JOB_COMPLETION_INDEX"
        nodes, rank = node_count(env), _whole(env, rank_name, 0)
        if rank >= nodes:
            raise SpecError(f"{rank_name} = {rank}: must be below {NCDEMO_NODES} = {nodes}; ranks count from 0")
        return cls(nodes, rank, env.get(NCDEMO_MASTER_ADDR) or cls.master_addr)


def node_count(env: Mapping[str, str]) -> int:
    """Return how many nodes the job has."""
    nodes = _whole(env, NCDEMO_NODES, 1)
    if nodes < 1:
        raise SpecError(f"{NCDEMO_NODES} = {nodes}: must be at least 1; it is the number of nodes of this job")
    return nodes


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise SpecError(f"{name} = {text!r}: must be a whole number, e.g. {default}")
    return int(text)


def job_name(spec: TrainSpec | BenchSpec, env: Mapping[str, str]) -> str:
    """Return the name of a job, and of its run directory on node 0."""
    name = env.get(NCDEMO_JOB) or f"{spec.name}-{spec.spec_hash()}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise SpecError(f"{NCDEMO_JOB} = {name!r}: must be the name of a folder: letters, digits, hyphens, dots, at most 100")
    return name


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> TrainSpec | BenchSpec:
    """Read a spec file of any kind that a job can run, and apply dotted overrides; the file says which. Raise SpecError."""
    text, source = read_text(path)
    data, _ = read(text, lambda line: f"{source}:{line}")
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in RUNS:
        raise SpecError(f"{source}: kind = {shown(kind)}: a job runs kind: {' or '.join(RUNS)}; write it at the top of the file")
    return load_spec(path, RUNS[kind], overrides)


def job_command(python: str = "python") -> tuple[str, ...]:
    """Return what a container or a systemd unit runs on each node."""
    return (python, "-m", JOB_MODULE, *JOB_ARGS)


def workload_command(spec: TrainSpec | BenchSpec, folder: Path, python: str, *, nodes: int = 1, node_rank: int = 0,
                     master_addr: str = "127.0.0.1", master_port: int = PORT) -> tuple[str, ...]:  # fmt: skip
    """Return what runs a spec on one node; `folder` holds it as spec.yaml. Training has nodes x train.processes ranks.

    Modules only: a script's path would hide installed packages behind folders of ours.
    """
    if isinstance(spec, BenchSpec):
        return (python, "-m", WORKLOADS["bench"], "--run", str(folder))
    ranks = nodes * spec.train.processes
    # Without these the launcher asks a config file in the user's home, and falls back to one process in silence.
    args = ["--num_processes", str(ranks), "--num_machines", str(nodes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    if ranks > 1:
        args += ["--multi_gpu", "--main_process_port", str(master_port if nodes > 1 else 0)]  # 0: any free port
    if nodes > 1:
        args += ["--machine_rank", str(node_rank), "--main_process_ip", master_addr]
        args += ["--rdzv_conf", f"timeout={spec.train.rendezvous_timeout_s}"]
    return (python, "-m", LAUNCHER, *args, "-m", WORKLOADS[f"train {spec.train.strategy}"], "--run", str(folder))


def workload_env(spec: TrainSpec | BenchSpec, *, nodes: int = 1) -> dict[str, str]:
    """Return what a workload needs beside this process' environment, on this machine."""
    env = {"TOKENIZERS_PARALLELISM": "false"}
    if isinstance(spec, BenchSpec):
        return env
    threads = max(1, (os.cpu_count() or 1) // spec.train.processes)
    env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)), **env}
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists():
        env["ACCELERATE_USE_CPU"] = "true"
    if nodes > 1 or os.environ.get(NCDEMO_NODES):
        env[NCDEMO_NODES] = str(nodes)
    return env
