"""What a training run's GPUs took in its steps, by the samples that lie in its folder; those of other nodes are on their own machines.

run.train = TrainResult(..., energy_j=energy_j(folder / "samples.jsonl", steps))
"""

from collections.abc import Sequence
from pathlib import Path

from ncdemo.spec.energy import Meter
from ncdemo.spec.result import StepRecord


def energy_j(samples: Path, steps: Sequence[StepRecord]) -> float | None:
    """Return joules of all GPUs of the node over the steps; None where it is not known for one of them, as over a stop."""
    meter = Meter.read(samples)
    if not meter.measured:
        return None
    found = [meter.joules(step.end_s - step.step_time_s, step.end_s) for step in steps]
    known = [joules for taken in found if taken for joules in taken[:1]]
    return sum(known) if len(known) == len(steps) else None
