"""The output layer with the loss inside, so that the logits of all targets never exist at once.

head = Head(model, "chunked")           # the model's own output layer, replaced in place
loss = loss_sum(model, batch, device, head)

The ordinary loss holds 12 bytes per target and word of the vocabulary at its peak, in fp32 and in bf16: log-probabilities, their
gradient and that of the logits, in fp32 each. Here it is PART_BYTES of logits and their gradient, whatever the number of targets. The
gradients are computed in the forward pass, part by part, so nothing is multiplied twice. liger-kernel does the same in Triton.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from workloads.data.packing import IGNORED

PART_BYTES = 2**28
"""Of the fp32 logits that exist at a time."""
PEAK_BYTES = 12
"""Per target and word of the vocabulary, of the ordinary loss at its peak."""


def logits_bytes(targets: int, vocabulary: int) -> int:
    """Return what the ordinary loss holds at its peak."""
    return PEAK_BYTES * targets * vocabulary


class Head:
    """Takes the place of a model's output layer: the layer itself, or within `loss_of` the summed loss of its output."""

    def __init__(self, model: Any, kind: Literal["chunked", "liger"]) -> None:
        self._layer = model.get_output_embeddings()
        self._plain = self._layer.forward
        self._loss = chunked_loss if kind == "chunked" else liger_loss()
        self._targets: torch.Tensor | None = None
        # The module stays, so that what DDP, FSDP and ZeRO hang on it still runs.
        self._layer.forward = self._forward

    @contextmanager
    def loss_of(self, targets: torch.Tensor) -> Iterator[None]:
        """Within, the model returns the loss summed over targets [N] (-100: none), a scalar, where it returns logits else."""
        self._targets = targets
        try:
            yield
        finally:
            self._targets = None

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._targets is None:
            return self._plain(hidden)
        return self._loss(hidden.flatten(0, -2), self._layer.weight, self._targets)


def chunked_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, part_bytes: int = PART_BYTES) -> torch.Tensor:
    """Return cross_entropy(hidden @ weight.T, targets, reduction="sum") in fp32. hidden [N, H], weight [V, H], targets [N] or -100."""
    rows = max(1, part_bytes // (4 * weight.shape[0]))
    return _ChunkedLoss.apply(hidden, weight, targets, rows)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, rows: int) -> torch.Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        with torch.autocast(kind, enabled=False):
            inputs, matrix = hidden.to(dtype), weight.to(dtype)
            loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
            ctx.hidden = torch.empty_like(hidden) if of_hidden else None
            ctx.weight = torch.zeros_like(weight, dtype=torch.float32) if of_weight else None
            for start in range(0, len(targets), rows):
                part = slice(start, start + rows)
                logits = (inputs[part] @ matrix.T).float()
                loss += _loss_and_gradient_(logits, targets[part])
                if not (of_hidden or of_weight):
                    continue
                gradient = logits.to(dtype)
                if of_hidden:
                    ctx.hidden[part] = gradient @ matrix
                if of_weight and dtype == torch.float32:
                    ctx.weight.addmm_(gradient.T, inputs[part])
                elif of_weight:
                    ctx.weight += gradient.T @ inputs[part]
        ctx.dtype = weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        hidden, weight = ctx.hidden, ctx.weight
        ctx.hidden = ctx.weight = None  # scaled in place, so a second backward pass would be wrong
        if hidden is None and weight is None:
            raise RuntimeError("the loss was taken backward before; its gradients are gone")
        return None if hidden is None else hidden.mul_(scale), None if weight is None else weight.mul_(scale).to(ctx.dtype), None, None


def _loss_and_gradient_(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the summed loss, and turn the logits into its gradient in place: probabilities less 1 at the target, 0 without one."""
    ignored = targets == IGNORED
    at = targets.masked_fill(ignored, 0)[:, None]
    logits -= logits.amax(dim=-1, keepdim=True)
    wanted = logits.gather(-1, at)
    total = logits.exp_().sum(dim=-1, keepdim=True)
    logits /= total
    logits.scatter_add_(-1, at, torch.full_like(wanted, -1.0))
    logits.masked_fill_(ignored[:, None], 0.0)
    return (total.log_() - wanted).masked_fill_(ignored[:, None], 0.0).sum()


def liger_loss() -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return liger-kernel's fused linear cross entropy, summed; a weight's gradient is summed in fp32."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    fused = LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED, reduction="sum", accum_dtype=torch.float32)
    return lambda hidden, weight, targets: fused(weight, hidden, targets)


@torch.no_grad()
def why_not(model: Any) -> str | None:
    """Return why the loss can't move into a model's output layer; None if it can. Reads the model once, for a single token."""
    layer = model.get_output_embeddings()
    if type(layer) is not torch.nn.Linear or layer.bias is not None:
        return f"this model's output layer is {type(layer).__name__}{' with a bias' if getattr(layer, 'bias', None) is not None else ''}"
    told = torch.tensor([[[-40.0, 1.0, 50.0]]], device=model.device)
    training, plain = model.training, layer.forward
    layer.forward = lambda hidden: told
    model.eval()
    try:
        returned = model(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=model.device), use_cache=False).logits
    finally:
        layer.forward = plain
        model.train(training)
    same = returned.shape == told.shape and torch.equal(returned.float(), told)
    return None if same else "this model scales or caps what its output layer returns"
