"""What our loop adds to the bare forward, backward and step of the same model on the same batches.

Both sides train the embedded model on the same packed rows. Ours is the loop's own step (workloads/training/core/step.py): rows,
packing, loss, backward, clipping, update, sums over ranks, record. The bare one gets its batch ready-made and does forward, loss,
backward, clipping and update. Steps are interleaved, and the order alternates; the first pair warms up.

    make bench-loop
"""

import argparse
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ncdemo.spec.train import TrainSpec
from workloads.data.embedded_model import embedded_model
from workloads.data.packing import pack
from workloads.data.source import load_dataset
from workloads.data.tokens import cut, tokenize
from workloads.training.accelerate.__main__ import Accelerate
from workloads.training.core.attention import PACKED, register
from workloads.training.core.loss import loss_sum
from workloads.training.core.plan import make_plan, schedule
from workloads.training.core.step import take_step

BAR = 0.02

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=24, help="pairs of steps")
parser.add_argument("--tokens", type=int, default=256, help="in a row at most")
args = parser.parse_args()

register()
spec = TrainSpec.model_validate(
    {"train": {"precision": "fp32", "max_steps": args.steps + 1, "learning_rate": 1e-6}, "data": {"max_seq_len": args.tokens}}
)
folder, strategy, device = embedded_model(), Accelerate(spec), torch.device("cpu")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model.set_attn_implementation(PACKED)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.99), fused=True)
forward = strategy.setup(model, optimizer)
examples = [e for e in (cut(tokenize(e, tokenizer), args.tokens) for e in load_dataset(spec.data).train[:300]) if e]
plan, same = make_plan(examples, spec, 1), make_plan(examples, spec, 1)


def ours(number: int) -> float:
    start = time.perf_counter()
    take_step(number, plan, strategy, forward, tokenizer.pad_token_id, spec, time.perf_counter, lambda: [0, 0, 0])
    return time.perf_counter() - start


def bare(number: int) -> float:
    batch = pack(next(same.rows))
    start = time.perf_counter()
    (loss_sum(model, batch, device) / batch.target_tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = schedule(number - 1, args.steps + 1, spec.train)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


ratios, times = [], []
for i in range(args.steps + 1):
    pair = {side: side(i + 1) for side in ((ours, bare) if i % 2 else (bare, ours))}
    if i:
        ratios.append(pair[ours] / pair[bare])
        times.append((pair[ours], pair[bare]))
middle = statistics.median(ratios) - 1
spread = sorted(ratios)
a, b = (statistics.median(column) for column in zip(*times, strict=True))
print(f"{args.steps} pairs of steps of the embedded model, rows of {args.tokens} tokens, fp32: ours {a:.3f} s, bare {b:.3f} s (medians)")
print(
    f"overhead: median of the paired ratios {middle:+.2%}, quartiles {spread[len(spread) // 4] - 1:+.2%} to {spread[-len(spread) // 4] - 1:+.2%}"
)
print(f"bar {BAR:.0%}: {'met' if middle < BAR else 'missed'}")
