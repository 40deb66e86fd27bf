"""Where a run is: what the loop itself needs to go on exactly, beside the weights and what is the strategy's own.

One file for the run, and the random number generators of each rank in a file of their own.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.result import EvalRecord, StepRecord
from ncdemo.spec.train import TrainSpec
from workloads.training.core.part import Part

FILE = "position.json"
FREE = ("name", "telemetry", "checkpoint", "prices")
"""Parts of a spec that decide nothing of what is computed."""
RELAUNCHED = ("train.processes", "train.rendezvous_timeout_s")
"""What may change too: the same rows go on over other ranks, with the sum's last bits differing."""


@dataclass
class Position:
    """After `step` steps. `rows` is the cursor in the endless, seeded order of rows, which also is the packing's state."""

    step: int = 0
    rows: int = 0
    clock_s: float = 0.0
    """The run's clock, attempts before included."""
    computed_tokens: int = 0
    """Of all ranks, padding included."""
    peak_rss_bytes: int | None = None
    steps: list[StepRecord] = field(default_factory=list)
    evals: list[EvalRecord] = field(default_factory=list)

    def evaluated(self, step: int) -> EvalRecord | None:
        """Return the evaluation after so many steps, if it was made."""
        return next((e for e in self.evals if e.step == step), None)

    def write(self, folder: Path, spec: TrainSpec, world_size: int) -> None:
        """Write what the whole run shares; rank 0 does."""
        plain = {name: getattr(self, name) for name in ("step", "rows", "clock_s", "computed_tokens", "peak_rss_bytes")}
        records = {"steps": [s.model_dump() for s in self.steps], "evals": [e.model_dump() for e in self.evals]}
        (folder / FILE).write_text(json.dumps({**plain, **records, "world_size": world_size, "spec": spec.to_dict()}))


def read_position(folder: Path, spec: TrainSpec, where: object) -> tuple[Position, int]:
    """Return the position in a checkpoint and its world size. Raise SpecError when it is of a run of another spec."""
    found = json.loads((folder / FILE).read_text())
    there, world_size = found.pop("spec"), found.pop("world_size")
    if different := differences(there, spec.to_dict()):
        raise SpecError(
            f"{where}: its checkpoint of step {found['step']} is of another spec ({'; '.join(different)}); "
            "undo the change, or begin anew with checkpoint.resume=never"
        )
    steps = [StepRecord(**s) for s in found.pop("steps")]
    evals = [EvalRecord(**e) for e in found.pop("evals")]
    return Position(**found, steps=steps, evals=evals), world_size


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return, for each key that decides the run and differs, both of its values."""
    a, b = _flat(there), _flat(here)
    keys = [k for k in {**a, **b} if k.split(".")[0] not in FREE and k not in RELAUNCHED and a.get(k) != b.get(k)]
    return [f"{k} is {a.get(k)!r} there and {b.get(k)!r} here" for k in keys]


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {k: v for name, child in value.items() for k, v in _flat(child, f"{key}.{name}" if key else name).items()}


def generator_states() -> dict[str, Any]:
    """Return the state of every random number generator that training may draw from on this rank."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    version, numbers, gauss = random.getstate()
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": [version, list(numbers), gauss], "numpy": _numpy_state()}


def save_generators(states: dict[str, Any], part: Part, rank: int) -> None:
    """Write a rank's generators into its part of a checkpoint."""
    part.save(f"generators-{rank:05d}.pt", states)


def load_generators(folder: Path, rank: int) -> bool:
    """Restore them; return False where the checkpoint has none for this rank, as it was written by fewer."""
    path = folder / f"generators-{rank:05d}.pt"
    if not path.exists():
        return False
    state = torch.load(path, weights_only=True)
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    import numpy

    kind, keys, *rest = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), *rest))
    return True


def _numpy_state() -> list[Any]:
    import numpy

    kind, keys, *rest = numpy.random.get_state(legacy=True)
    return [kind, numpy.asarray(keys).tolist(), *rest]
