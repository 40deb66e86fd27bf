"""The share of a GPU's peak that a step used, where both are known (ncdemo/spec/peaks.py has the arithmetic).

utilization = Utilization.of(model, strategy)
utilization.share(tokens=8192, target_tokens=4096, squares=2**22, step_time_s=0.5)      # None on a CPU
"""

from dataclasses import dataclass
from typing import Any, Self

import torch

from ncdemo.spec.peaks import Work, mfu, peak_flops_per_s, step_flops


@dataclass(frozen=True)
class Utilization:
    work: Work | None
    peak_flops_per_s: float | None
    gpus: int

    @classmethod
    def of(cls, model: Any, strategy: Any) -> Self:
        """Look at a model before it is spread over ranks."""
        known = strategy.device.type == "cuda" and strategy.precision == "bf16"
        peak = peak_flops_per_s(torch.cuda.get_device_name(strategy.device)) if known else None
        return cls(work_of(model) if peak else None, peak, strategy.world_size)

    def share(self, *, tokens: int, target_tokens: int, squares: int, step_time_s: float) -> float | None:
        if self.work is None:
            return None
        return mfu(
            step_flops(self.work, tokens=tokens, target_tokens=target_tokens, squares=squares),
            step_time_s,
            self.peak_flops_per_s,
            self.gpus,
        )


def work_of(model: Any) -> Work | None:
    """Return what of a model multiplies; None for one in 4 bits, whose tensors don't tell their size, or of experts, few of which run."""
    if any(not p.is_floating_point() or "experts" in name.split(".") for name, p in model.named_parameters()):
        return None
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    # Positions that are learned are looked up too.
    looked_up = {id(embedding), id(head), *(id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding))}
    body = [p for p in model.parameters() if id(p) not in looked_up and p.ndim >= 2]
    config = model.config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Work(
        body=sum(p.numel() for p in body),
        trained_body=sum(p.numel() for p in body if p.requires_grad),
        head=head.numel(),
        trained_head=head.numel() if head.requires_grad else 0,
        layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * head_dim,
    )
