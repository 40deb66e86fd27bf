"""The DeepSpeed strategy: ZeRO stages 0 to 3 over one or more nodes (NCCL on GPUs, gloo on CPUs), optionally offloading to host memory.

accelerate launch --multi_gpu -m workloads.training.deepspeed --run runs/demo      # runs/demo/spec.yaml says what to do
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import JOB_MODULE, node_count
from ncdemo.spec.train import TrainSpec
from workloads.run import main_guard
from workloads.training.core.main import run_rank
from workloads.training.core.model import load_model, with_weights
from workloads.training.core.part import Part
from workloads.training.core.strategy import resolve_precision, save_final
from workloads.training.deepspeed import state
from workloads.training.deepspeed.config import generated, merged

CLASSES = {0: "AdamW", 1: "DeepSpeedZeroOptimizer", 2: "DeepSpeedZeroOptimizer", 3: "DeepSpeedZeroOptimizer_Stage3"}
"""What DeepSpeed runs at each stage, when it does what was asked."""


class DeepSpeed:
    """See core/strategy.py for what each method promises."""

    packs, patched, checkpointed = True, False, False

    def __init__(self, spec: TrainSpec) -> None:
        self._spec, self._train = spec, spec.train
        cpu = not torch.cuda.is_available()
        self.precision = resolve_precision(self._train, torch.device("cpu" if cpu else "cuda"))
        stage = self._train.deepspeed.zero_stage
        if stage == 0 and self.precision == "bf16":
            raise SpecError(
                "train.deepspeed.zero_stage = 0 with bf16: DeepSpeed's optimizer for it gives other losses than stages 1 to 3; "
                "use stage 1, or train.precision fp32"
            )
        self.sharded = stage == 3
        _init_distributed(cpu)
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = torch.device("cpu") if cpu else torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        nodes = node_count(os.environ)
        if self.world_size != nodes * self._train.processes:
            where = f" on each of {nodes} nodes" if nodes > 1 else ""
            start = f"`python -m {JOB_MODULE}` on each node" if nodes > 1 else "`ncdemo train deepspeed`"
            raise SpecError(
                f"train.processes = {self._train.processes}{where}: {self.world_size} are running; start with {start}, which launches them"
            )

    def load(self, spec: TrainSpec, checkpoint: Path | None) -> tuple[Any, Any]:
        return load_model(spec)  # `restore` brings the weights: in bf16 the engine makes its fp32 masters of rounded ones

    def setup(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
        import deepspeed

        section = self._train.deepspeed
        config = merged(generated(self._train, self.precision, self.world_size), section.config_file)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._engine.train()
        runs = self._engine.zero_optimization_stage(), type(self._engine.optimizer).__name__
        if runs != (section.zero_stage, CLASSES[section.zero_stage]):
            raise SpecError(f"train.deepspeed.zero_stage = {section.zero_stage}: stage {runs[0]} with {runs[1]} is running")
        self.engine = f"{type(self._engine).__name__}, ZeRO {runs[0]}, {runs[1]}"
        return self._engine

    def autocast(self) -> Any:
        return contextlib.nullcontext()  # in bf16 the weights themselves are bf16, beside fp32 masters

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        assert self._engine.is_gradient_accumulation_boundary() == last
        self._engine.backward(loss, scale_wrt_gas=False)
        if not last:
            self._engine.step()  # counts the micro-batch

    def step(self, learning_rate: float, max_grad_norm: float | None) -> float:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        plain = isinstance(self._engine.optimizer, torch.optim.Optimizer)  # stage 0, which doesn't tell its gradient's norm
        norm = _grad_norm(self._engine.module) if plain else None
        self._engine.step()  # clips by gradient_clipping of the config, which is max_grad_norm
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        total = values.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.cpu()

    def unwrapped(self) -> Any:
        return self._engine.module

    def snapshot(self) -> Callable[[Part], None]:
        return state.copy(self._engine, rank=self.rank, trained_only=self._train.method == "lora")

    def restore(self, folder: Path) -> None:
        state.put(self._engine, *state.read(folder))

    def save(self, tokenizer: Any, folder: Path) -> None:
        """Put the whole fp32 weights into a fresh model on rank 0: the same path for every stage."""
        weights = state.weights(self._engine, keep=self.rank == 0, trained_only=self._train.method == "lora")
        if self.rank == 0:
            save_final(with_weights(self._spec, weights), tokenizer, self._train.method, folder)


def _init_distributed(cpu: bool) -> None:
    """Join the ranks; one process that no launcher started is a group of its own."""
    if cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name, alone in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        os.environ.setdefault(name, alone)
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    # DeepSpeed would compile its shared-memory collectives at the start (80 s); gloo does without.
    __compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo" if cpu else "nccl")


def _grad_norm(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


if __name__ == "__main__":
    main_guard(lambda: run_rank(DeepSpeed))
