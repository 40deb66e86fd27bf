"""Packing against padding on the shipped data: tokens that count per second of a real training step.

Both sides train the embedded model on the same examples in the same order, 16 a step: packed end to end, or padded to
the longest of the 16. Steps are interleaved (A B A B), forward, backward and update, and the loss runs on answers alone in
both. A token that counts is one that is not padding; the figure is their number / time, and the ratio of the two.

    make bench-packing        # about two minutes on two cores
"""

import argparse
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ncdemo.spec.train import Data
from workloads.data.embedded_model import embedded_model
from workloads.data.packing import Batch, pack, pad
from workloads.data.source import load_dataset
from workloads.data.tokens import tokenize
from workloads.training.core.attention import PACKED, register
from workloads.training.core.loss import loss_sum

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--examples", type=int, default=16, help="examples per step")
parser.add_argument("--bf16", action="store_true")
args = parser.parse_args()

register()
torch.manual_seed(0)
folder = embedded_model()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
examples = [tokenize(e, tokenizer) for e in load_dataset(Data()).train[: args.steps * args.examples]]


def step(batch: Batch, attention: str) -> float:
    """Return tokens that count per second."""
    model.set_attn_implementation(attention)
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        nll = loss_sum(model, batch, torch.device("cpu"))
    (nll / batch.target_tokens).backward()
    optimizer.step()
    optimizer.zero_grad()
    return batch.tokens / (time.perf_counter() - start)


rates: dict[str, list[float]] = {"packed": [], "padded": []}
padding = []
for i in range(-1, args.steps):
    group = examples[max(i, 0) * args.examples : (max(i, 0) + 1) * args.examples]
    packed, padded = pack(group), pad(group, tokenizer.pad_token_id)
    pair = step(packed, PACKED), step(padded, "sdpa")
    if i >= 0:  # the first pair warms up
        rates["packed"].append(pair[0])
        rates["padded"].append(pair[1])
        padding.append(1 - padded.tokens / padded.input_ids.numel())
ratios = [a / b for a, b in zip(rates["packed"], rates["padded"], strict=True)]
precision = "bf16" if args.bf16 else "fp32"
print(
    f"{args.examples} examples a step, {args.steps} paired steps, {precision}; padding is {statistics.mean(padding):.0%} of a padded batch"
)
print(
    f"packed {statistics.median(rates['packed']):.0f}, padded {statistics.median(rates['padded']):.0f} tokens that count per second (medians)"
)
print(f"ratio: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")
