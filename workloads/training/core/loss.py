"""The loss that every strategy trains on and every evaluation reports: summed over target tokens, fp32."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from workloads.data.packing import IGNORED, Batch


def loss_sum(model: Any, batch: Batch, device: torch.device) -> torch.Tensor:
    """Return the sum of negative log-likelihoods in nats over the batch's targets, a scalar."""
    logits, targets = target_logits(model, batch, device)
    return cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")


def target_logits(model: Any, batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [N, vocabulary] and targets [N] (or -100) of the positions that have a target in any row.

    The head runs on these alone: on prompts and padding its output would be thrown away.
    """
    labels = batch.labels.to(device)
    keep = (labels != IGNORED).any(dim=0).nonzero()[:, 0]
    extra = {} if batch.cu_seq_lens is None else {"cu_seq_lens_q": batch.cu_seq_lens.to(device)}
    mask = None if batch.attention_mask is None else batch.attention_mask.to(device)
    out = model(
        input_ids=batch.input_ids.to(device),
        position_ids=batch.position_ids.to(device),
        attention_mask=mask,
        use_cache=False,
        logits_to_keep=keep,
        **extra,
    )
    return out.logits.flatten(0, 1), labels[:, keep].flatten()
