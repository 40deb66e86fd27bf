"""Peak arithmetic of GPUs, and the share of it that a training step used (MFU).

    mfu(step_flops(work, tokens=8192, target_tokens=4096, squares=2**22), 0.5, peak_flops_per_s("NVIDIA H100 NVL"), gpus=2)

Dense bf16 tensor cores with fp32 accumulation: NVIDIA prints the figure with 2:4 sparsity, which is twice of it. A GPU that isn't
here has no peak (None), never a guessed one.
"""

from dataclasses import dataclass

H100 = "https://www.nvidia.com/en-us/data-center/h100/, as pytorch/torchtitan's tools/utils.py cites it (read 2026-11-26)"
H200 = "https://www.nvidia.com/en-us/data-center/h200/, as pytorch/torchtitan's tools/utils.py cites it (read 2026-11-26)"


@dataclass(frozen=True)
class Peak:
    """One row: what the driver calls the GPU, and half of what its page says with sparsity."""

    name: str
    dense_bf16_flops_per_s: float
    source: str


PEAKS = (
    Peak("NVIDIA H100 NVL", 835e12, H100),
    Peak("NVIDIA H100 80GB HBM3", 989e12, f"{H100}; the SXM form"),
    Peak("NVIDIA H200", 989e12, f"{H200}; the SXM form"),
)


@dataclass(frozen=True)
class Work:
    """What of a model multiplies. An input embedding is looked up, so it counts only where it is the head as well."""

    body: int
    """Weights that every token is multiplied by."""
    trained_body: int
    head: int
    """Weights of the output layer."""
    trained_head: int
    layers: int
    attention_width: int
    """Heads x the size of one."""


def peak_flops_per_s(gpu: str) -> float | None:
    """Return a GPU's dense bf16 peak by the driver's name; None where it isn't in the table."""
    return next((peak.dense_bf16_flops_per_s for peak in PEAKS if peak.name == gpu), None)


def step_flops(work: Work, *, tokens: int, target_tokens: int, squares: int) -> float:
    """Return the useful floating point operations of one step. `squares`: the sum of the examples' squared lengths in tokens.

    Each weight that multiplies costs 2 forward and 2 for the gradient of its input, and 2 more where it is trained; the head runs on
    target tokens alone. Attention multiplies queries by keys and weights by values: 12 x layers x width per pair of tokens, forward
    and backward, halved because it is causal.
    """
    body = tokens * (4 * work.body + 2 * work.trained_body)
    head = target_tokens * (4 * work.head + 2 * work.trained_head)
    return body + head + 6 * work.layers * work.attention_width * squares


def mfu(flops: float, step_time_s: float, peak: float | None, gpus: int) -> float | None:
    """Return FLOPs / (time x peak x GPUs), 0 to 1; None without a peak."""
    return None if peak is None else flops / (step_time_s * peak * gpus)
