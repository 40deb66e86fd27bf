"""The loss that every strategy trains on and every evaluation reports: summed over target tokens, fp32."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from workloads.data.packing import IGNORED, Batch


def loss_sum(model: Any, batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (sum of negative log-likelihoods in nats, number of targets that are the first choice), both scalars.

    The head runs on positions with a target alone: on prompts and padding its output would be thrown away.
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
    logits, kept = out.logits.flatten(0, 1), labels[:, keep].flatten()
    nll = cross_entropy(logits.float(), kept, ignore_index=IGNORED, reduction="sum")
    return nll, (logits.argmax(-1) == kept).sum()
