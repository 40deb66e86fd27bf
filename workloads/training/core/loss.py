"""The loss that every strategy trains on and every evaluation reports: summed over target tokens, fp32."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from workloads.data.packing import IGNORED, Batch
from workloads.training.core.head import Head


def loss_sum(model: Any, batch: Batch, device: torch.device, head: Head | None = None) -> torch.Tensor:
    """Return the sum of negative log-likelihoods in nats over the batch's targets, a scalar. `head`: computes it in its parts."""
    if head is None:
        logits, targets = target_logits(model, batch, device)
        return cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
    labels, keep = _kept(batch, device)
    with head.loss_of(labels[:, keep].flatten()):
        loss = _call(model, batch, device, keep)
    assert loss.ndim == 0, loss.shape
    return loss


def target_logits(model: Any, batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [N, vocabulary] and targets [N] (or -100) of the positions that have a target in any row.

    The head runs on these alone: on prompts and padding its output would be thrown away.
    """
    labels, keep = _kept(batch, device)
    return _call(model, batch, device, keep).flatten(0, 1), labels[:, keep].flatten()


def _kept(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    labels = batch.labels.to(device)
    return labels, (labels != IGNORED).any(dim=0).nonzero()[:, 0]


def _call(model: Any, batch: Batch, device: torch.device, keep: torch.Tensor) -> torch.Tensor:
    extra = {} if batch.cu_seq_lens is None else {"cu_seq_lens_q": batch.cu_seq_lens.to(device), "max_length_q": batch.longest}
    mask = None if batch.attention_mask is None else batch.attention_mask.to(device)
    out = model(
        input_ids=batch.input_ids.to(device),
        position_ids=batch.position_ids.to(device),
        attention_mask=mask,
        use_cache=False,
        logits_to_keep=keep,
        **extra,
    )
    return out.logits
