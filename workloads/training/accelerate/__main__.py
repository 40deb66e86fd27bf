"""The Accelerate strategy: one process, or DDP (fsdp.py: FSDP2) over several on one or more nodes (NCCL on GPUs, gloo on CPUs).

accelerate launch -m workloads.training.accelerate --run runs/demo      # runs/demo/spec.yaml says what to do
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import JOB_MODULE, node_count
from ncdemo.spec.train import TrainSpec
from workloads.run import main_guard
from workloads.training.accelerate.config import options
from workloads.training.core.host import HostCopy
from workloads.training.core.main import run_rank
from workloads.training.core.model import load_model
from workloads.training.core.part import Part
from workloads.training.core.strategy import resolve_precision, save_final, trained_state

OPTIMIZER = "optimizer.pt"


class Accelerate:
    """See core/strategy.py for what each method promises."""

    sharded, packs, patched = False, True, False

    def __init__(self, spec: TrainSpec) -> None:
        self._train = train = spec.train
        cpu = not torch.cuda.is_available()
        device = torch.device("cpu" if cpu else "cuda")
        self.precision = resolve_precision(train, device)
        self._host = HostCopy()
        nodes = node_count(os.environ)
        self._options = options(train, precision=self.precision, nodes=nodes, cpu=cpu)
        self.checkpointed = bool(self._options.get("activation_checkpointing"))
        self._accelerator = self._start(cpu, "bf16" if self.precision == "bf16" else "no")
        self.rank, self.world_size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device
        # The launcher falls back to one process in silence (e.g. --cpu --num_processes 2).
        if self.world_size != nodes * train.processes:
            where = f" on each of {nodes} nodes" if nodes > 1 else ""
            start = f"`python -m {JOB_MODULE}` on each node" if nodes > 1 else "`ncdemo train accelerate`"
            raise SpecError(
                f"train.processes = {train.processes}{where}: {self.world_size} are running; start with {start}, which launches them"
            )

    def _start(self, cpu: bool, mixed_precision: str) -> Accelerator:
        return Accelerator(cpu=cpu, mixed_precision=mixed_precision)

    def load(self, spec: TrainSpec, checkpoint: Path | None) -> tuple[Any, Any]:
        return load_model(spec, checkpoint)

    def setup(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
        self._model, self._optimizer = self._accelerator.prepare(model, optimizer)
        self.engine = type(self._model).__name__
        if (self.engine == "DistributedDataParallel") != (self.world_size > 1):
            raise SpecError(
                f"train.processes = {self._train.processes}: {self.engine} is running on {self.world_size} ranks; start with ncdemo"
            )
        return self._model

    def autocast(self) -> Any:
        return self._accelerator.autocast()

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        with contextlib.nullcontext() if last else self._accelerator.no_sync(self._model):
            self._accelerator.backward(loss)

    def step(self, learning_rate: float, max_grad_norm: float | None) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self._accelerator.clip_grad_norm_(self._model.parameters(), max_grad_norm or float("inf"))
        self._host.before_change()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return self._accelerator.reduce(values.to(self.device), "sum").cpu()

    def unwrapped(self) -> Any:
        # Accelerate's own unwrap_model imports DeepSpeed where it is installed: seconds, in the middle of the run.
        return self._model.module if isinstance(self._model, torch.nn.parallel.DistributedDataParallel) else self._model

    def snapshot(self) -> Callable[[Part], None]:
        if self.rank != 0:  # DDP: every rank holds the same
            return lambda part: None
        model = self.unwrapped()
        weights, optimizer = self._host((trained_state(model), self._optimizer.state_dict()))
        # A forward pass may change buffers, unlike weights.
        weights |= {name: b.to("cpu", copy=True) for name, b in model.named_buffers() if name in weights}

        def write(part: Part) -> None:
            self._host.wait()
            model.save_pretrained(part.folder, state_dict=weights)
            part.save(OPTIMIZER, optimizer)

        return write

    def restore(self, folder: Path) -> None:
        # The weights came with the model; moments move to where their weights are.
        self._optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True))

    def save(self, tokenizer: Any, folder: Path) -> None:
        if self.rank == 0:
            save_final(self.unwrapped(), tokenizer, self._train.method, folder)


def make(spec: TrainSpec) -> Accelerate:
    """Return the strategy with the sharding that the spec asks for."""
    if spec.train.accelerate.sharding == "fsdp2":
        from workloads.training.accelerate.fsdp import Fsdp2

        return Fsdp2(spec)
    return Accelerate(spec)


if __name__ == "__main__":
    main_guard(lambda: run_rank(make))
