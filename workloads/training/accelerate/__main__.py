"""The Accelerate strategy: one process, or DDP over several on one or more nodes (NCCL on GPUs, gloo on CPUs).

accelerate launch -m workloads.training.accelerate --run runs/demo      # runs/demo/spec.yaml says what to do
"""

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import JOB_MODULE, node_count
from ncdemo.spec.load import load_spec
from ncdemo.spec.train import Train, TrainSpec
from workloads.run import main_guard, open_run
from workloads.training.core.fit import fit
from workloads.training.core.strategy import resolve_precision


class Accelerate:
    """See core/strategy.py for what each method promises."""

    def __init__(self, train: Train) -> None:
        cpu = not torch.cuda.is_available()
        device = torch.device("cpu" if cpu else "cuda")
        self.precision = resolve_precision(train, device)
        self._accelerator = Accelerator(cpu=cpu, mixed_precision="bf16" if self.precision == "bf16" else "no")
        self.rank, self.world_size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device
        # The launcher falls back to one process in silence (e.g. --cpu --num_processes 2).
        nodes = node_count(os.environ)
        if self.world_size != nodes * train.processes:
            where = f" on each of {nodes} nodes" if nodes > 1 else ""
            start = f"`python -m {JOB_MODULE}` on each node" if nodes > 1 else "`ncdemo train accelerate`"
            raise SpecError(
                f"train.processes = {train.processes}{where}: {self.world_size} are running; start with {start}, which launches them"
            )

    def setup(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
        self._model, self._optimizer = self._accelerator.prepare(model, optimizer)
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
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return self._accelerator.reduce(values.to(self.device), "sum").cpu()

    def unwrapped(self) -> Any:
        return self._accelerator.unwrap_model(self._model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run directory with the resolved spec.yaml")
    folder = parser.parse_args().run
    spec = load_spec(folder / "spec.yaml", TrainSpec)
    strategy = Accelerate(spec.train)
    if strategy.rank != 0:
        fit(spec, None, strategy)
        return
    with open_run(folder, spec) as run:
        fit(spec, run, strategy)


if __name__ == "__main__":
    main_guard(main)
