"""Attention for packed rows: each example attends to itself alone, at the cost of its own length.

Registered with transformers as `ncdemo_packed`. A dense block mask over the row would give the same result at the cost
of the row's length squared; transformers' sdpa path lets packed examples leak into each other when a cache is on.
On a GPU of capability 8.0 or higher, in 16 bits, one call of torch's variable-length attention does a whole row; elsewhere
each example gets a call of its own.
"""

import contextlib
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

PACKED = "ncdemo_packed"
WIDEST_HEAD = 256
"""Of flash attention's kernels; a head's width is also a multiple of 8 there."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each segment. query [1, H, T, D], key and value [1, H_kv, T, D] -> [1, T, H, D].

    cu_seq_lens_q: int32 [segments + 1], their borders; max_length_q: the longest one's tokens (None: not known).
    """
    if whole_row(value, dropout):
        # Not a function that autocast knows; under it the rotary embedding leaves query and key in fp32.
        flat = [x.to(value.dtype)[0].transpose(0, 1) for x in (query, key, value)]
        longest, gqa = max_length_q or query.shape[2], query.shape[1] != key.shape[1]
        return varlen_attn(*flat, cu_seq_lens_q, cu_seq_lens_q, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=gqa)[
            None
        ], None
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


def whole_row(value: torch.Tensor, dropout: float) -> bool:
    """Say whether torch's variable-length attention takes it: flash attention's kernels, which know no dropout there."""
    fits = value.dtype in (torch.bfloat16, torch.float16) and value.shape[-1] % 8 == 0 and value.shape[-1] <= WIDEST_HEAD
    return value.is_cuda and fits and not dropout and torch.cuda.get_device_capability(value.device) >= (8, 0)


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """The borders say it all."""


def register() -> None:
    """Make `model.set_attn_implementation(PACKED)` work."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)
