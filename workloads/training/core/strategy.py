"""What a strategy must offer: how it sets up, steps and saves. The loop (fit.py) is the same for all."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import Train, TrainSpec
from workloads.room import NoRoom, lacks_room, with_room
from workloads.training.core.part import Part


class Strategy(Protocol):
    rank: int
    world_size: int
    device: torch.device
    precision: Literal["fp32", "bf16"]
    engine: str
    """After setup: what really runs, e.g. DistributedDataParallel."""
    sharded: bool
    """Whether weights are spread over ranks, so that all must call the model equally often."""
    packs: bool
    """Whether its model keeps packed examples apart (attention.py). Without, data.packing is refused by the spec."""
    patched: bool
    """Whether a library has replaced the model's layers, so that train.speed leaves them alone."""
    checkpointed: bool
    """Whether it keeps less of the layers by itself, as a user's own config says, so that the core doesn't."""

    def load(self, spec: TrainSpec, checkpoint: Path | None) -> tuple[Any, Any]:
        """Return (tokenizer, model), mostly core/model.py's; `checkpoint` holds what a snapshot wrote."""
        ...

    def setup(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
        """Take model and optimizer; return the model to call in training. Raise SpecError if what runs isn't what was asked."""
        ...

    def autocast(self) -> AbstractContextManager[Any]: ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add to the gradients; `last` is true for the step's last forward pass, when ranks exchange them."""
        ...

    def step(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Update the weights; return the gradient's norm before clipping."""
        ...

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return values summed over ranks, on every rank."""
        ...

    def unwrapped(self) -> Any:
        """Return the plain transformers (or peft) model."""
        ...

    def snapshot(self) -> Callable[[Part], None]:
        """Begin to copy to host memory what exact resume needs of this rank; return what writes it, from a thread.

        All ranks call this between two steps. `step` waits for the copy before it changes anything. The writer runs while training
        goes on: it must touch neither model nor optimizer, and call no collective. File names must differ between ranks. The copy
        is valid until the next call.
        """
        ...

    def restore(self, folder: Path) -> None:
        """Take back, on every rank after setup, what a snapshot holds and `load` hasn't taken."""
        ...

    def save(self, tokenizer: Any, folder: Path) -> None:
        """Write folder/model, an ordinary Hugging Face folder, and for LoRA folder/adapter. All ranks call this; rank 0 writes."""
        ...


def resolve_precision(train: Train, device: torch.device) -> Literal["fp32", "bf16"]:
    """Choose bf16 where the hardware multiplies it natively; raise SpecError when bf16 is asked for and it doesn't."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        cpu = torch.cpu.get_capabilities()
        native = bool(cpu.get("amx_bf16") or cpu.get("avx512_bf16"))
    if train.precision == "bf16" and not native:
        raise SpecError(
            "train.precision = 'bf16': this hardware has no bf16 arithmetic (it would run 3 to 5 times slower); use fp32 or auto"
        )
    return "bf16" if native and train.precision != "fp32" else "fp32"


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write an ordinary Hugging Face folder, whole or not at all. Raise NoRoom where the disk stays full."""
    part = folder.with_name(f".{folder.name}.part")

    def write() -> None:
        shutil.rmtree(part, ignore_errors=True)
        try:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
        except Exception:
            shutil.rmtree(part, ignore_errors=True)  # while it waits for room, half a model takes none
            raise

    try:
        with_room(write, str(folder))
    except Exception as error:
        if not lacks_room(error):
            raise
        raise NoRoom(
            f"{folder}: the trained model could not be written ({error}); free some space and start the same command again: "
            "it goes on from the newest checkpoint, which is kept"
        ) from None
    for file in part.iterdir():
        file.chmod(0o644)  # safetensors writes 0600
    shutil.rmtree(folder, ignore_errors=True)  # what a stopped attempt left
    os.replace(part, folder)


def save_final(model: Any, tokenizer: Any, method: str, folder: Path) -> None:
    """Write model/; for LoRA also adapter/, and model/ is base and adapter merged, which every engine loads."""
    if method == "lora":
        save_model(model, tokenizer, folder / "adapter")
        model = model.merge_and_unload()
    save_model(model, tokenizer, folder / "model")


def trained_state(model: Any) -> dict[str, torch.Tensor]:
    """Return what training changes of a model's state: all of it, or with LoRA the adapters alone."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}
