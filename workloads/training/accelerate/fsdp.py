"""FSDP2 by Accelerate: weights, gradients and moments are spread over the ranks, and gathered layer by layer when needed.

Chosen by train.accelerate.sharding: fsdp2. A checkpoint holds each rank's own part, so as many ranks must go on with it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import TrainSpec
from workloads.training.accelerate.__main__ import Accelerate
from workloads.training.core.model import load_model, with_weights
from workloads.training.core.part import Part
from workloads.training.core.strategy import save_final

CHECKPOINTED = "_checkpoint_wrapped_module."
"""What torch's activation checkpointing puts into the names of parameters."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class Fsdp2(Accelerate):
    """See core/strategy.py for what each method promises."""

    sharded = True

    def _start(self, cpu: bool, mixed_precision: str) -> Accelerator:
        # Gradients are summed in fp32, as DDP's are; without efficient loading each rank reads the weights itself.
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed_precision == "bf16" else None
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False, mixed_precision_policy=policy,
            **self._options,
        )  # fmt: skip
        accelerator = Accelerator(cpu=cpu, mixed_precision=mixed_precision, fsdp_plugin=plugin)
        if accelerator.num_processes == 1:
            raise SpecError(
                "train.accelerate.sharding = 'fsdp2': one rank has nobody to share with; set train.processes to 2 or more, or none"
            )
        if cpu:  # Accelerate 1.15 takes the plugin on GPUs alone and runs DDP on a CPU without a word; its FSDP2 itself runs on both
            accelerator.state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            accelerator.state.fsdp_plugin = plugin
        return accelerator

    def load(self, spec: TrainSpec, checkpoint: Path | None) -> tuple[Any, Any]:
        self._spec = spec
        if checkpoint and len(found := list(checkpoint.glob("fsdp2-*.pt"))) != self.world_size:
            raise SpecError(
                f"train.processes = {self._train.processes}: {checkpoint} holds the parts of {len(found)} ranks, and {self.world_size} run now; "
                "go on with as many, or begin anew with checkpoint.resume=never"
            )
        return load_model(spec)  # `restore` brings each rank's part

    def setup(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
        self._model, self._optimizer = self._accelerator.prepare(model, optimizer)
        whole = [
            name for name, p in self._model.named_parameters() if not (isinstance(p, DTensor) and any(at.is_shard() for at in p.placements))
        ]
        if whole or not self._accelerator.is_fsdp2:
            raise SpecError(f"train.accelerate.sharding = 'fsdp2': {whole[0] if whole else 'the model'} is whole on every rank; use none")
        self.engine = f"FSDP2, {type(self._model).__name__}"
        return self._model

    def step(self, learning_rate: float, max_grad_norm: float | None) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self._accelerator.clip_grad_norm_(self._model.parameters(), max_grad_norm or float("inf"))
        self._host.before_change()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def snapshot(self) -> Callable[[Part], None]:
        rank, own = self.rank, self._host({name: self._part(p) for name, p in self._trained()})

        def write(part: Part) -> None:
            self._host.wait()
            part.save(f"fsdp2-{rank:05d}.pt", own)

        return write

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        own = torch.load(folder / f"fsdp2-{self.rank:05d}.pt", map_location="cpu", weights_only=True)
        for name, p in self._trained():
            p.to_local().copy_(own[name]["weight"])
            if "step" in own[name]:
                self._state[p] = {"step": own[name]["step"].to(p.device)} | {key: _like(p, own[name][key]) for key in MOMENTS}

    def save(self, tokenizer: Any, folder: Path) -> None:
        """Gather the weights one by one, and put them into a fresh model on rank 0."""
        weights = {}
        for name, p in self._trained():
            whole = p.detach().full_tensor()
            if self.rank == 0:
                weights[name] = whole.cpu()
        if self.rank == 0:
            save_final(with_weights(self._spec, weights), tokenizer, self._train.method, folder)

    @property
    def _state(self) -> dict[Any, Any]:
        state: dict[Any, Any] = self._optimizer.optimizer.state
        return state

    def _trained(self) -> Iterator[tuple[str, Any]]:
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # an evaluation leaves the last layers gathered, as a backward pass usually follows
        return ((name.replace(CHECKPOINTED, ""), p) for name, p in self._model.named_parameters() if p.requires_grad)

    def _part(self, p: Any) -> dict[str, torch.Tensor]:
        state = self._state.get(p, {})
        return {"weight": p.detach().to_local()} | {key: v.to_local() if isinstance(v, DTensor) else v for key, v in state.items()}


def _like(p: Any, part: torch.Tensor) -> DTensor:
    """Return this rank's part of a moment, spread as its parameter is."""
    return DTensor.from_local(part.to(p.device), p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride())
