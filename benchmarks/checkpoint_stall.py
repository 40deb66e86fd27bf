"""How long a checkpoint keeps training waiting: the asynchronous writer against the synchronous one, on this machine.

The embedded model (135 M parameters) with AdamW's moments, so that a checkpoint has 1.6 GB. A stall is what a checkpoint adds to the
loop: for the synchronous writer copy, write, fsync and commit; for the asynchronous one the copy to memory, and whatever the steps
that follow take longer than usual while the file is written. Sides are interleaved; the first round of each is thrown away.

    make bench-checkpoint
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from ncdemo.spec.train import TrainSpec
from workloads.data.embedded_model import embedded_model
from workloads.training.accelerate.__main__ import Accelerate
from workloads.training.core.checkpoint import Checkpoints
from workloads.training.core.store import LocalStore

BAR = 0.10

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rounds", type=int, default=3, help="checkpoints of each side that count")
parser.add_argument("--steps", type=int, default=12, help="longest wait for the asynchronous writer, in steps")
parser.add_argument("--tokens", type=int, default=256, help="per step")
args = parser.parse_args()

strategy = Accelerate(TrainSpec.model_validate({"train": {"precision": "fp32"}}))
model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
forward = strategy.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True))
batch = torch.randint(0, model.config.vocab_size, (1, args.tokens), generator=torch.Generator().manual_seed(0))


def step() -> float:
    """Take one step; return its seconds."""
    start = time.perf_counter()
    strategy.backward(forward(input_ids=batch, labels=batch, use_cache=False).loss, last=True)
    strategy.step(1e-6, 1.0)
    return time.perf_counter() - start


def alone(values: list[int]) -> list[int]:
    return values


def checkpoint(number: int, *, asynchronous: bool) -> tuple[float, float]:
    """Write one; return the seconds that the loop stood still, and those that its next steps lost besides."""
    start = time.perf_counter()
    checkpoints.begin(number, strategy.snapshot())
    if not asynchronous:
        checkpoints.finish(alone)
        return time.perf_counter() - start, 0.0
    stood, slower = time.perf_counter() - start, 0.0
    for _ in range(args.steps):
        slower += max(0.0, step() - usual)
        checkpoints.count(*checkpoints.votes())
        if not checkpoints.under_way:
            break
    start = time.perf_counter()
    checkpoints.finish(alone)
    return stood + time.perf_counter() - start, slower


usual = statistics.median([step() for _ in range(7)][2:])
stalls: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
    checkpoints = Checkpoints(LocalStore(Path(folder)), 0, 1, keep=1)
    for i in range(args.rounds + 1):
        for asynchronous in (True, False):
            found = checkpoint(2 * i + asynchronous + 1, asynchronous=asynchronous)
            if i:
                stalls[asynchronous].append(found)
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())

sync = statistics.median(stood for stood, _ in stalls[False])
stood = statistics.median(stood for stood, _ in stalls[True])
lost = statistics.median(a + b for a, b in stalls[True])
print(
    f"{model.num_parameters() / 1e6:.0f} M parameters, {size / 1e9:.2f} GB a checkpoint, {args.rounds} of each, medians; a step takes {usual:.2f} s"
)
print(
    f"synchronous {sync:.2f} s; asynchronous {stood:.2f} s of standing still, {lost:.2f} s with the steps that ran slower beside the writer"
)
for name, value in (("standing still", stood), ("with slower steps", lost)):
    print(f"{name}: {value / sync:.1%} of the synchronous stall; bar {BAR:.0%}: {'met' if value / sync <= BAR else 'missed'}")
