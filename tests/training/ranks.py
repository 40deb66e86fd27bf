"""Ranks forked from one process that has imported everything: seconds instead of a launcher's half minute.

    python tests/training/ranks.py JOBS.json      # [{"folder": ..., "processes": 2}, ...]; each folder holds spec.yaml

Tests start it as a process of its own, because torch's threads and gloo must not have run before a fork.
"""

import json
import os
import socket
import sys
from pathlib import Path

os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1")


def work(rank: int, job: dict, port: int) -> None:
    import traceback

    from ncdemo.spec.load import load_spec
    from ncdemo.spec.train import TrainSpec
    from workloads.training.accelerate.__main__ import make
    from workloads.training.core.main import run_rank
    from workloads.training.deepspeed.__main__ import DeepSpeed

    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job["processes"]), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    folder = Path(job["folder"])
    spec = load_spec(folder / "spec.yaml", TrainSpec)
    try:
        if job.get("restore"):
            moved(DeepSpeed(spec), spec, Path(job["restore"]), folder)
        else:
            sys.argv = ["train", "--run", str(folder)]
            run_rank(DeepSpeed if spec.train.strategy == "deepspeed" else make)
    except Exception:
        (folder / f"error-{rank}.txt").write_text(traceback.format_exc())
        raise


def moved(strategy, spec, source: Path, target: Path) -> None:
    """Restore a checkpoint on these ranks, and write what they then hold: moved there and back it must be the same."""
    from workloads.training.core.fit import _optimizer
    from workloads.training.core.part import Part

    _, model = strategy.load(spec, None)
    strategy.setup(model, _optimizer(model, spec.train))
    strategy.restore(source)
    with Part(target) as part:
        strategy.snapshot()(part)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    import deepspeed  # noqa: F401
    import torch.multiprocessing
    import transformers.models.llama.modeling_llama  # noqa: F401

    import workloads.training.accelerate.fsdp
    import workloads.training.core.fit
    import workloads.training.deepspeed.__main__  # noqa: F401

    for one in json.loads(Path(sys.argv[1]).read_text()):
        torch.multiprocessing.start_processes(work, (one, free_port()), nprocs=one["processes"], start_method="fork")
