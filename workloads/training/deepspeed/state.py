"""Weights and Adam's moments of a DeepSpeed engine, whole and by parameter name, whatever the stage has done to them.

DeepSpeed's own checkpoints are cut for the ranks that wrote them. By name and whole they are the same at every stage and
number of ranks, so a run can go on with others; the price is that rank 0 holds them once in host memory (12 bytes per
trained parameter).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from workloads.training.core.part import Part

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.pt"
MOMENTS = ("exp_avg", "exp_avg_sq")


def copy(engine: Any, *, rank: int, trained_only: bool) -> Callable[[Part], None]:
    """Copy weights and moments to rank 0's host memory; return what writes them. All ranks call this."""
    named, saved = weights(engine, keep=rank == 0, trained_only=trained_only), moments(engine, keep=rank == 0)

    def write(part: Part) -> None:
        if rank == 0:
            save_file(named, part.folder / WEIGHTS)
            part.save(OPTIMIZER, saved)

    return write


def read(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return what `copy` wrote."""
    return load_file(folder / WEIGHTS), torch.load(folder / OPTIMIZER, weights_only=True)


def weights(engine: Any, *, keep: bool, trained_only: bool) -> dict[str, torch.Tensor]:
    """Return fp32 weights by name, in host memory, where `keep` is true; {} elsewhere. All ranks call this."""
    found = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad or not trained_only:
            value = _whole(parameter)
            if keep:
                found[name] = value.detach().to("cpu", torch.float32, copy=True).contiguous()
    return found


def moments(engine: Any, *, keep: bool) -> dict[str, Any]:
    """Return {"step": n, name: {"exp_avg": ..., "exp_avg_sq": ...}} where `keep` is true. All ranks call this."""
    from deepspeed.utils import safe_get_full_optimizer_state

    states = _optimizer_states(engine)
    steps = {int(state["step"]) for _, state in states if "step" in state}
    if not steps:
        return {"step": 0}
    assert len(steps) == 1, steps
    found: dict[str, Any] = {"step": steps.pop()}
    _link(engine)
    for name, parameter in _trained(engine):
        for key in MOMENTS:
            plain = _is_plain(engine)
            value = engine.optimizer.state[parameter][key] if plain else safe_get_full_optimizer_state(parameter, key)
            if keep:
                found.setdefault(name, {})[key] = value.detach().to("cpu", copy=True).contiguous()
    return found


@torch.no_grad()
def put(engine: Any, named: dict[str, torch.Tensor], saved: dict[str, Any]) -> None:
    """Give an engine whole weights and moments; each rank takes its part. All ranks call this with the same values."""
    for name, parameter in _trained(engine):
        _put_weight(engine, parameter, named[name])
    if not saved["step"]:
        return
    for flat, state in _optimizer_states(engine):
        state["step"] = torch.tensor(float(saved["step"]), device=flat.device if _fused(engine) else "cpu")
        state.update({key: torch.zeros_like(flat) for key in MOMENTS})
    _link(engine)
    for name, parameter in _trained(engine):
        for key in MOMENTS:
            _put_moment(engine, parameter, key, saved[name][key])


def _link(engine: Any) -> None:
    """Tell stages 1 and 2 which moments belong to which parameter.

    DeepSpeed 0.19 does it once, after the first step of the first parameter group, when the others have no moments yet.
    """
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _whole(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return a parameter's fp32 master where there is one, gathered from all ranks."""
    from deepspeed import zero
    from deepspeed.utils import safe_get_full_fp32_param

    master = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
    if master is not None:
        return master
    if not hasattr(parameter, "ds_id"):
        return parameter
    with zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def _put_weight(engine: Any, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    if hasattr(parameter, "ds_id"):
        part = _part(parameter, value)
        safe_set_local_fp32_param(parameter, part)
        parameter.ds_tensor.data.copy_(part)
        if parameter.numel() == parameter.ds_numel:  # small ones are kept whole on every rank
            parameter.data.copy_(value)
        return
    parameter.data.copy_(value)
    if not _is_plain(engine):
        safe_set_full_fp32_param(parameter, value)


def _put_moment(engine: Any, parameter: torch.nn.Parameter, key: str, value: torch.Tensor) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if _is_plain(engine):
        engine.optimizer.state[parameter][key].copy_(value)
    elif hasattr(parameter, "ds_id"):
        safe_set_local_optimizer_state(parameter, _part(parameter, value), key)
    else:
        safe_set_full_optimizer_state(parameter, value, key)


def _part(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a stage 3 parameter's value; the last rank's is padded with zeros."""
    size = parameter.ds_tensor.numel()
    start = torch.distributed.get_rank() * size
    part = value.flatten()[start : start + size]
    return torch.nn.functional.pad(part, (0, size - part.numel()))


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    return ((name, p) for name, p in engine.module.named_parameters() if p.requires_grad)


def _is_plain(engine: Any) -> bool:
    """Return whether the optimizer is torch's own, over the parameters themselves: stage 0."""
    return isinstance(engine.optimizer, torch.optim.Optimizer)


def _fused(engine: Any) -> bool:
    return bool(engine.optimizer.param_groups[0].get("fused"))


def _optimizer_states(engine: Any) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """Return the tensors that AdamW updates on this rank, each with its (perhaps still empty) state."""
    optimizer = engine.optimizer
    if _is_plain(engine):
        return [(p, optimizer.state[p]) for _, p in _trained(engine)]
    name = "fp32_partitioned_groups_flat" if engine.zero_optimization_stage() == 3 else "single_partition_of_fp32_groups"
    return [(flat, optimizer.optimizer.state[flat]) for flat in getattr(optimizer, name)]
