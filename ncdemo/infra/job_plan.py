"""What a job comes to, before it is a Kubernetes Job or a systemd unit: its id, its environment, its share of a node.

The id ends in a hash of all that decides the run. An unchanged job keeps its id and never runs twice; a changed one gets a new id.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ncdemo.infra.registry import REPOSITORY, image_tag
from ncdemo.spec.job import (
    FILES_DIR,
    NCDEMO_CACHE,
    NCDEMO_CHECKPOINT_URI,
    NCDEMO_JOB,
    NCDEMO_MASTER_ADDR,
    NCDEMO_NODES,
    NCDEMO_REGION,
    NCDEMO_RESULTS_URI,
    NCDEMO_RUNS,
    NCDEMO_STORAGE_ACCOUNT,
    NCDEMO_VM_SIZE,
    RUNS_DIR,
    SCRATCH_DIR,
)
from ncdemo.spec.load import dump_spec
from ncdemo.spec.run_folder import CHECKPOINTS, RESULTS
from ncdemo.spec.services import Images
from ncdemo.spec.stack_file import JobRun

NODE_SHARE = 0.85
"""Of a node's CPU and memory, what jobs may take: the rest is the kubelet's, the agents' and the kernel's."""
SERVER_SHARE = 0.75
"""Of a job's CPU and memory, what the engine's container gets when there is one."""
SHM_SHARE = 0.25
"""Of a job's memory, what /dev/shm may hold; it counts as the job's memory."""
BARE_CPUS, BARE_MEMORY_GIB = 2.0, 8
"""A job without a pool, on a cluster that ncdemo doesn't know, takes this much."""


@dataclass(frozen=True)
class Share:
    """What one container gets of its node."""

    cpus: float
    memory_gib: int
    gpus: int = 0

    def split(self, part: float) -> "Share":
        return Share(max(0.5, round(self.cpus * part, 1)), max(1, int(self.memory_gib * part)))

    @property
    def shm_gib(self) -> int:
        return max(1, int(self.memory_gib * SHM_SHARE))


def share(run: JobRun) -> Share:
    """Return what a job's pod gets of each node: as many CPUs and as much memory as its part of the GPUs."""
    if not run.pool:
        return Share(BARE_CPUS, BARE_MEMORY_GIB, run.gpus)
    size = run.pool.size
    part = NODE_SHARE * (run.gpus / size.gpus if run.gpus else 1.0 if not size.gpus else 1 / (2 * size.gpus))
    return Share(round(size.vcpus * part, 1), int(size.memory_gib * part), run.gpus)


def job_id(run: JobRun, images: Images) -> str:
    """Return <name>-<10 hex digits of what decides the run>: spec, image, nodes, GPUs, size, engine."""
    job = run.job
    what: dict[str, Any] = {
        "spec": run.run.to_dict(),
        "image": (images.repository or REPOSITORY) + image_tag(images, run.image),
        "nodes": job.nodes,
        "gpus": run.gpus,
        "vm_size": run.pool.size.name if run.pool else None,
        "server": job.server.to_dict() if job.server else None,
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return f"{job.name}-{digest[:10]}"


def run_file(run: JobRun) -> str:
    """Return the run's spec as the file that the container reads."""
    return dump_spec(run.run)


def environment(run: JobRun, name: str, master: str, region: str | None) -> dict[str, str]:
    """Return the environment of a job's container, on any target; `region` is None outside Azure."""
    env = {
        NCDEMO_JOB: name,
        NCDEMO_NODES: str(run.job.nodes),
        NCDEMO_RUNS: RUNS_DIR,
        NCDEMO_CACHE: f"{SCRATCH_DIR}/ncdemo",
        # The root file system is read-only: whatever a library wants to write goes to scratch.
        "HOME": f"{SCRATCH_DIR}/home",
        "XDG_CACHE_HOME": f"{SCRATCH_DIR}/cache",
        "HF_HOME": f"{SCRATCH_DIR}/huggingface",
        "MPLCONFIGDIR": f"{SCRATCH_DIR}/matplotlib",
        "TRITON_CACHE_DIR": f"{SCRATCH_DIR}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH_DIR}/inductor",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if run.pool and region:
        env |= {NCDEMO_VM_SIZE: run.pool.size.name, NCDEMO_REGION: region}
    if run.job.nodes > 1:
        # NC nodes have no InfiniBand.
        env |= {NCDEMO_MASTER_ADDR: master, "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "eth0"}
    return env


def results_environment(account: Any) -> dict[str, Any]:
    """Return where the run directory and the checkpoints go; `account` may be an Output."""
    return {NCDEMO_RESULTS_URI: RESULTS, NCDEMO_CHECKPOINT_URI: f"az://{CHECKPOINTS}", NCDEMO_STORAGE_ACCOUNT: account}


__all__ = ["FILES_DIR", "Share", "environment", "job_id", "results_environment", "run_file", "share"]
