"""What of train.speed this machine and model can do: checked before the model loads, and set up when it has.

    check(spec.train, hardware := Hardware.of(device, precision))       # SpecError: what can't be, and what to do
    path, head = set_up(spec, model, hardware, ...)                     # path: what is on, for the run's result

What was asked for and can't be is an error; `auto` never is. ncdemo/spec/speed.py refuses what needs no machine to know.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.result import FastPath
from ncdemo.spec.train import Train, TrainSpec
from workloads.training.core.head import Head, logits_bytes, why_not
from workloads.training.core.layers import checkpoint_activations, compile_layers, decoder_layers, to_fp8

PACKAGES = ("liger_kernel", "torchao", "triton")
TRITON = (7, 0)
"""Lowest compute capability that Triton compiles for."""
FP8 = (8, 9)
"""Lowest compute capability with 8-bit float tensor cores: Ada; Hopper is 9.0."""
LARGE_LOGITS_BYTES = 2**30
STATE_BYTES = 16
"""Per trained weight: fp32 weight, gradient and two moments."""
ROOM = 0.9
"""Share of the GPU's memory that an estimate may fill."""


@dataclass(frozen=True)
class Hardware:
    """What decides, so that a test can say it as well."""

    device: str
    """cpu or cuda."""
    precision: str
    """fp32 or bf16, as resolved."""
    name: str = ""
    capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    """Of one GPU."""
    packages: frozenset[str] = frozenset()
    """Of PACKAGES, what is installed."""
    no_compiler: str | None = None
    """Why torch.compile has nothing to compile with; None if it has."""

    @classmethod
    def of(cls, device: torch.device, precision: str) -> Self:
        packages = frozenset(name for name in PACKAGES if importlib.util.find_spec(name))
        if device.type != "cuda":
            compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # what torch looks for
            return cls(device.type, precision, packages=packages, no_compiler=_no_compiler(compiler))
        gpu = torch.cuda.get_device_properties(device)
        capability = (gpu.major, gpu.minor)
        return cls(
            "cuda", precision, gpu.name, capability, gpu.total_memory, packages, _no_compiler(os.environ.get("CC") or "gcc", "clang")
        )


def check(train: Train, hardware: Hardware) -> None:
    """Raise SpecError for a switch that this machine can't do."""
    speed, gpu = train.speed, hardware.device == "cuda"
    here = f"{hardware.name} has compute capability {'.'.join(map(str, hardware.capability or ()))}" if gpu else "this run has no CUDA GPU"
    triton = gpu and (hardware.capability or (0, 0)) >= TRITON
    if speed.cross_entropy == "liger":
        where, remedy = "train.speed.cross_entropy = 'liger'", "use chunked, which holds as little, or auto"
        if not triton:
            raise SpecError(f"{where}: its kernels need a GPU of capability 7.0 or higher and {here}; {remedy}")
        if missing := {"liger_kernel", "triton"} - hardware.packages:
            raise SpecError(f"{where}: {sorted(missing)[0]} isn't installed; scripts/setup_env.sh --extra train on Linux, or {remedy}")
    if speed.compile:
        where, remedy = "train.speed.compile = True", "set it to false"
        if gpu and not triton:
            raise SpecError(f"{where}: Triton needs a GPU of capability 7.0 or higher and {here}; {remedy}")
        if gpu and "triton" not in hardware.packages:
            raise SpecError(
                f"{where}: triton isn't installed, which compiles for GPUs; scripts/setup_env.sh --cuda --extra train, or {remedy}"
            )
        if hardware.no_compiler:
            raise SpecError(f"{where}: {hardware.no_compiler}; {remedy}")
    if speed.fp8:
        where, remedy = "train.speed.fp8 = True", "set it to false"
        if not gpu or (hardware.capability or (0, 0)) < FP8:
            raise SpecError(f"{where}: 8-bit floats need a GPU of capability 8.9 (Ada) or 9.0 (Hopper) or higher and {here}; {remedy}")
        if "torchao" not in hardware.packages:
            raise SpecError(f"{where}: torchao isn't installed; scripts/setup_env.sh --extra train --extra fp8, or {remedy}")
        if hardware.precision != "bf16":
            raise SpecError(f"{where}: what isn't in 8 bits is bf16, and this run is in {hardware.precision}; {remedy}")


def set_up(
    spec: TrainSpec, model: Any, hardware: Hardware, *, patched: bool = False, checkpointed: bool = False, shards: int = 1
) -> tuple[FastPath, Head | None]:
    """Apply the switches to a loaded model; return what is on, and the output layer that computes the loss (None: ordinary).

    patched: a library has replaced the model's layers, and they are left alone. checkpointed: the strategy keeps less of the layers itself.
    shards: ranks over which weights, gradients and moments are spread. Raise SpecError for what this model can't do.
    """
    speed, layers = spec.train.speed, decoder_layers(model)
    kind: Literal["full", "chunked", "liger"] = "full" if patched else _cross_entropy(spec, model)
    less = speed.activation_checkpointing
    if less == "auto":
        less = not patched and not checkpointed and bool(layers) and _needs_less(spec, model, hardware, shards)
    for key, asked in (("compile", speed.compile), ("activation_checkpointing", less), ("fp8", speed.fp8)):
        if asked and not layers:
            raise SpecError(f"train.speed.{key} = True: {type(model).__name__} has no decoder layers that are known here; set it to false")
    if speed.fp8 and not to_fp8(model):
        raise SpecError("train.speed.fp8 = True: no layer of this model has sizes in sixteens, which 8-bit floats need; set it to false")
    if less:
        checkpoint_activations(model)
    if speed.compile:
        compile_layers(model)
    path = FastPath(
        cross_entropy=kind,
        fused_adamw=speed.fused_adamw,
        compile=speed.compile,
        activation_checkpointing=bool(less) or checkpointed,
        fp8=speed.fp8,
    )
    return path, None if kind == "full" else Head(model, kind)


def layer_bytes(config: Any, tokens: int, precision: str) -> int:
    """Return about what a Llama-like decoder keeps of its layers for the backward pass.

    Per token and layer, in fp32: 6 of the hidden size (two norms' inputs, normalised and scaled ones), query, attention's output and its
    copy, key and value, 4 of the MLP's. In bf16 the norms' stay fp32 and have bf16 copies; the others are half.
    """
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    norms, others = 6 * config.hidden_size, (3 * heads + 2 * kv_heads) * head_dim + 4 * config.intermediate_size
    per_token = 4 * (norms + others) if precision == "fp32" else 4 * norms + 2 * (norms // 3) + 2 * others
    return int(tokens * config.num_hidden_layers * per_token)


def _cross_entropy(spec: TrainSpec, model: Any) -> Literal["full", "chunked", "liger"]:
    asked = spec.train.speed.cross_entropy
    if asked == "full":
        return asked
    targets = spec.train.micro_batch_size * spec.data.max_seq_len
    if asked == "auto" and logits_bytes(targets, model.get_output_embeddings().weight.shape[0]) < LARGE_LOGITS_BYTES:
        return "full"
    reason = why_not(model)
    if reason and asked != "auto":
        raise SpecError(f"train.speed.cross_entropy = {asked!r}: {reason}, so the loss can't move into it; use full or auto")
    return "full" if reason else "chunked" if asked == "auto" else asked


def _needs_less(spec: TrainSpec, model: Any, hardware: Hardware, shards: int) -> bool:
    """Return whether weights, moments and all that the layers keep would fill more of the GPU's memory than there is."""
    config = model.config.get_text_config()
    if hardware.memory_bytes is None or not hasattr(config, "intermediate_size"):
        return False
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    if hardware.precision == "bf16":  # what autocast multiplies with
        weights += 2 * model.num_parameters()
    kept = layer_bytes(config, spec.train.micro_batch_size * spec.data.max_seq_len, hardware.precision)
    return bool((STATE_BYTES * trained + weights) / shards + kept > ROOM * hardware.memory_bytes)


def _no_compiler(*names: str) -> str | None:
    if not any(map(shutil.which, names)):
        return f"there is no C compiler here ({' or '.join(names)}), which torch.compile calls; install one"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return (
        None
        if header.exists()
        else "Python's headers (Python.h) aren't here, which what torch.compile makes includes; install python3.11-dev"
    )
