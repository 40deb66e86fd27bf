"""What train.speed does to a model's decoder layers: compile them, keep less of them, multiply them in 8-bit floats.

All of it is in place and before DDP, FSDP or ZeRO see the model: parameters keep their names and their identity.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from workloads.training.core.attention import PACKED, packed_attention


def decoder_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the repeated blocks of a transformers model."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def compile_layers(model: torch.nn.Module) -> None:
    """Compile each layer's forward pass: one graph serves all layers, and rows of any length.

    The forward method and not the module: hooks of FSDP and DDP stay outside, and no name in the state dict changes.
    """
    # Its loop over borders would compile anew for each row; what is around it is compiled.
    AttentionInterface.register(PACKED, torch.compiler.disable(packed_attention))
    for layer in decoder_layers(model):
        layer.forward = torch.compile(layer.forward, dynamic=True)


def eager(compiled: bool) -> AbstractContextManager[Any]:
    """Return a context in which compiled layers run as they are written: an evaluation's shapes would each compile once more."""
    return _uncompiled() if compiled else nullcontext()


@contextmanager
def _uncompiled() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):
        yield


def checkpoint_activations(model: Any) -> None:
    """Keep each layer's input alone; the backward pass runs the layer again, with the same dropout."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def to_fp8(model: Any, *, emulate: bool = False) -> int:
    """Let the layers' matrices multiply in 8-bit floats, scaled per tensor as it comes; return how many. Weights stay as they are.

    A row has any number of tokens, so what the hardware wants in sixteens is filled up with zeros. `emulate`: compute what the
    hardware would, anywhere and slowly.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    from torchao.float8.float8_linear import Float8Linear

    config = Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    layers = decoder_layers(model)
    for layer in layers:
        convert_to_float8_training(layer, module_filter_fn=_in_sixteens, config=config)
    return sum(isinstance(module, Float8Linear) for layer in layers for module in layer.modules())


def _in_sixteens(module: torch.nn.Linear, _name: str) -> bool:
    return bool(module.in_features % 16 == 0 and module.out_features % 16 == 0)
