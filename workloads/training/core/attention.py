"""Attention for packed rows: each example attends to itself alone, at the cost of its own length.

Registered with transformers as `ncdemo_packed`. A dense block mask over the row would give the same result at the cost
of the row's length squared; transformers' sdpa path lets packed examples leak into each other when a cache is on.
"""

import contextlib
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

PACKED = "ncdemo_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each segment. query [1, H, T, D], key and value [1, H_kv, T, D] -> [1, T, H, D]."""
    dtype, cpu = value.dtype, query.device.type == "cpu"
    if cpu:  # torch's bf16 backward on CPUs takes 2.5 times as long as fp32's, casts included
        query, key, value = query.float(), key.float(), value.float()
    borders = cu_seq_lens_q.tolist()
    gqa = query.shape[1] != key.shape[1]
    with torch.autocast("cpu", enabled=False) if cpu else contextlib.nullcontext():
        out = [
            scaled_dot_product_attention(
                query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=gqa
            )
            for a, b in pairwise(borders)
        ]
    return torch.cat(out, dim=2).to(dtype).transpose(1, 2).contiguous(), None


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """The borders say it all."""


def register() -> None:
    """Make `model.set_attn_implementation(PACKED)` work."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)
