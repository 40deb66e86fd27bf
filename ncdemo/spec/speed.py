"""Switches that make a training step faster or smaller. None changes what is learned, beyond rounding.

What a strategy or method can't do is refused here; what the hardware or a missing package can't, at set-up
(workloads/training/core/speed.py), before the model is loaded.
"""

from typing import Literal

from ncdemo.spec.base import Spec


class Speed(Spec):
    """How a step is computed, not what it learns. What `auto` came to is in the run's result."""

    cross_entropy: Literal["auto", "full", "chunked", "liger"] = "auto"
    """Loss from all logits at once, from a part of them at a time, or by liger-kernel (GPU). `auto`: chunked where all take 1 GiB."""
    fused_adamw: bool = True
    """AdamW in one kernel per group of weights; false: torch's plain one."""
    compile: bool = False
    """torch.compile for the decoder layers: the first steps take minutes, the others less time."""
    activation_checkpointing: Literal["auto"] | bool = "auto"
    """Keep each layer's input alone and compute the rest again in the backward pass. `auto`: where the GPU's memory would not do."""
    fp8: bool = False
    """Multiply the decoder layers' matrices in 8-bit floats (torchao; Ada and Hopper GPUs on)."""


def misfit(speed: Speed, *, strategy: str, method: str, zero_stage: int, precision: str) -> str | None:
    """Return why a strategy or method can't do what is asked, and the remedy; None if it can."""
    if strategy == "unsloth":
        if speed.cross_entropy in ("chunked", "liger"):
            return (
                f"speed.cross_entropy: {speed.cross_entropy} has no effect with strategy: unsloth, whose model calls its own output layer; "
                "set train.speed.cross_entropy to auto"
            )
        own = {"compile": "compiles its layers itself", "activation_checkpointing": "replaces torch's by its own, which is left off"}
        for key, reason in own.items():
            if getattr(speed, key) is True:
                return f"speed.{key}: true can't go with strategy: unsloth, which {reason}; set train.speed.{key} to false"
    if speed.compile and strategy == "deepspeed" and zero_stage == 3:
        return (
            "speed.compile: true can't go with deepspeed.zero_stage: 3, which gathers weights by hooks inside the compiled layers; "
            "set train.speed.compile to false, or train.deepspeed.zero_stage to 2"
        )
    if speed.fp8 and strategy != "accelerate":
        return f"speed.fp8: true can't go with strategy: {strategy}; set train.strategy to accelerate, or train.speed.fp8 to false"
    if speed.fp8 and method != "full":
        return (
            f"speed.fp8: true can't go with method: {method}, whose adapters are too narrow for it; "
            "set train.method to full, or train.speed.fp8 to false"
        )
    if speed.fp8 and precision == "fp32":
        return "speed.fp8: true can't go with precision: fp32; set train.precision to bf16 or auto, or train.speed.fp8 to false"
    return None
