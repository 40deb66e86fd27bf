"""One optimizer step: micro-batches forward and backward, one update, one record."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.result import StepRecord
from ncdemo.spec.train import TrainSpec
from workloads.data.packing import pack, pad
from workloads.training.core.head import Head
from workloads.training.core.loss import loss_sum
from workloads.training.core.plan import Plan, schedule
from workloads.training.core.strategy import Strategy


@dataclass(frozen=True)
class Stepped:
    record: StepRecord
    """Sums over all ranks."""
    computed_tokens: int
    """Of all ranks, padding included."""
    squares: int
    """The sum of the examples' squared lengths, which attention's cost goes by."""
    votes: list[int]
    """What was asked of all ranks, summed over them."""


def take_step(number: int, plan: Plan, strategy: Strategy, forward: Any, pad_id: int, spec: TrainSpec, now: Callable[[], float],
              votes: Callable[[], list[int]], head: Head | None = None) -> Stepped:  # fmt: skip
    """Take one optimizer step. `votes` travel with the loss, so that ranks agree without a message of its own."""
    start = time.perf_counter()
    train = spec.train
    micro = [list(islice(plan.rows, train.micro_batch_size)) for _ in range(train.grad_accum_steps * strategy.world_size)]
    # Every rank sees the whole step, so the mean over all its targets needs no communication.
    everyone = [[e for row in rows for e in row] for rows in micro]
    targets = sum(sum(e.is_target[1:]) for examples in everyone for e in examples)
    batches = [pack(e) if spec.data.packing else pad(e, pad_id) for e in everyone[strategy.rank :: strategy.world_size]]
    total = torch.zeros((), dtype=torch.float64)
    for i, batch in enumerate(batches):
        with strategy.autocast():
            nll = loss_sum(forward, batch, strategy.device, head)
        # Gradients are averaged over ranks, hence the world size.
        strategy.backward(nll * (strategy.world_size / targets), last=i == len(batches) - 1)
        total += nll.detach().double().cpu()
    learning_rate = schedule(number - 1, plan.steps, train)
    grad_norm = strategy.step(learning_rate, train.max_grad_norm)
    summed = strategy.sum(torch.tensor([total, *votes()], dtype=torch.float64)).tolist()
    loss = summed[0] / targets
    elapsed = time.perf_counter() - start
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise SpecError(
            f"train.learning_rate = {train.learning_rate}: loss {loss} and gradient norm {grad_norm} at step {number}; lower it, or use precision fp32"
        )
    lengths = [[len(e.ids) for e in examples] for examples in everyone]
    tokens = sum(map(sum, lengths))
    computed = tokens if spec.data.packing else sum(len(n) * max(n) for n in lengths)
    record = StepRecord(
        step=number, end_s=now(), step_time_s=elapsed, loss=loss, learning_rate=learning_rate, grad_norm=grad_norm, tokens=tokens,
        target_tokens=targets, examples=sum(map(len, everyone)), tokens_per_s=tokens / elapsed,
    )  # fmt: skip
    return Stepped(record, computed, sum(n * n for row in lengths for n in row), [round(v) for v in summed[1:]])
