"""How long a checkpoint keeps training waiting: the asynchronous writer against the synchronous one, on this machine.

The embedded model (135 M parameters) with AdamW's moments, so that a checkpoint has 1.6 GB. A stall is what a checkpoint adds to the
loop: for the synchronous writer copy, write, fsync and commit; for the asynchronous one what the next update waits for the copy to
memory, and whatever the steps that follow take longer than those just before while the file is written. Sides are interleaved; the first
round of each is thrown away.

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
parser.add_argument("--steps", type=int, default=60, help="longest wait for the asynchronous writer, in steps")
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


def resident(name: str) -> int:
    """Return VmRSS or VmHWM of this process in bytes."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))


def checkpoint(number: int, *, asynchronous: bool) -> tuple[float, float]:
    """Write one; return the seconds that the loop stood still, and those that its next steps lost besides."""
    usual = statistics.median(step() for _ in range(3))
    usuals.append(usual)
    start, work, waited = time.perf_counter(), time.process_time(), strategy._host.waited_s
    checkpoints.begin(number, strategy.snapshot(), beside=asynchronous)
    if not asynchronous:
        checkpoints.finish(alone)
        works.append(time.process_time() - work)
        return time.perf_counter() - start, 0.0
    stood, longer, steps = time.perf_counter() - start, 0.0, 0
    while (checkpoints.under_way or not checkpoints._committed.done()) and steps < args.steps:
        longer, steps = longer + step() - usual, steps + 1
        checkpoints.count(*checkpoints.votes())
    waited = strategy._host.waited_s - waited
    start = time.perf_counter()
    checkpoints.finish(alone)
    return stood + waited + time.perf_counter() - start, longer - waited


for _ in range(3):
    step()
rss, usuals, works = resident("VmHWM"), [], []
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
    f"{model.num_parameters() / 1e6:.0f} M parameters, {size / 1e9:.2f} GB a checkpoint, {args.rounds} of each, medians; "
    f"a step takes {statistics.median(usuals):.2f} s; a checkpoint takes {statistics.median(works):.2f} s of CPU time; "
    f"peak memory {rss / 1e9:.2f} GB before the first checkpoint, {resident('VmHWM') / 1e9:.2f} GB in all"
)
print(
    f"synchronous {sync:.2f} s; asynchronous {stood:.2f} s of standing still, {lost:.2f} s with the steps that ran slower beside the writer"
)
for name, value in (("standing still", stood), ("with slower steps", lost)):
    print(f"{name}: {value / sync:.1%} of the synchronous stall; bar {BAR:.0%}: {'met' if value / sync <= BAR else 'missed'}")
