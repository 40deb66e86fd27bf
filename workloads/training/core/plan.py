"""Which rows each step computes, and at which learning rate; every rank makes the same plan, so none has to ask."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from ncdemo.spec.train import Data, Train, TrainSpec
from workloads.data.packing import epoch_rows
from workloads.data.tokens import TokenExample


@dataclass(frozen=True)
class Plan:
    """What a run computes, from its first row on."""

    steps: int
    rows_per_step: int
    """Of all ranks together."""
    rows: Iterator[list[TokenExample]]
    """Without end, epoch after epoch."""


def make_plan(examples: list[TokenExample], spec: TrainSpec, world_size: int, rows_done: int = 0) -> Plan:
    """Return the plan of a run that has already computed `rows_done` rows."""
    lengths = [len(e.ids) for e in examples]
    data, train = spec.data, spec.train
    rows_per_step = world_size * train.grad_accum_steps * train.micro_batch_size
    steps = train.max_steps
    if steps is None:
        steps = max(1, math.ceil((train.epochs or 1.0) * pack_count(lengths, data) / rows_per_step))
    rows = islice(epoch_rows(lengths, data.max_seq_len, data.packing, data.seed), rows_done, None)
    return Plan(steps, rows_per_step, ([examples[i] for i in row] for row in rows))


def pack_count(lengths: list[int], data: Data) -> int:
    """Return the number of rows in one epoch."""
    seen, count = 0, 0
    for row in epoch_rows(lengths, data.max_seq_len, data.packing, data.seed):
        seen, count = seen + len(row), count + 1
        if seen >= len(lengths):
            break
    return count


def schedule(done: int, steps: int, train: Train) -> float:
    """Return the learning rate of the step after `done` steps: linear warm-up, then cosine or linear to 0, or constant."""
    warmup = math.ceil(train.warmup_ratio * steps)
    if done < warmup:
        return train.learning_rate * (done + 1) / warmup
    left = 1 - (done - warmup) / max(1, steps - warmup)
    shape = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}
    return train.learning_rate * shape[train.schedule]
