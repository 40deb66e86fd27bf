"""Energy per token of a training run: what all GPUs of all its nodes took, each by the samples of its own machine.

joules, why = per_token("demo", meters(Path("runs/demo")), nodes=2, steps=steps)

A node's clock is the first one's to the moment at which both went on, so what is beside the truth is at the ends of the run alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ncdemo.spec.energy import Meter
from ncdemo.spec.result import StepRecord
from ncdemo.spec.run_folder import node_folder, node_samples


def meters(folder: Path) -> dict[int, Meter]:
    """Return the meter of each node, by its rank, whose samples lie in a run directory or beside it."""
    found = [(0, folder / "samples.jsonl"), *node_samples(folder)]
    return {rank: Meter.read(path) for rank, path in found if path.exists()}


def per_token(name: str, meters: Mapping[int, Meter], nodes: int, steps: Sequence[StepRecord]) -> tuple[float | None, str | None]:
    """Return joules per token of a run whose folder has this name; else None and why, where a GPU was measured at all.

    Of a run that went on after a stop, without the steps in which it stopped.
    """
    if not any(meter.measured for meter in meters.values()):
        return None, None
    if absent := [rank for rank in range(nodes) if rank not in meters]:
        return None, f"node {absent[0]} has no samples here: put its folder, {node_folder(Path(name), absent[0])}, beside {name}"
    known = [meters[rank] for rank in range(nodes)]
    windows = {(s.end_s - s.step_time_s, s.end_s): s.tokens for s in steps}
    windows = {window: tokens for window, tokens in windows.items() if not any(meter.parted(*window) for meter in known)}
    joules = 0.0
    for rank, meter in enumerate(known):
        for window in windows:
            taken = meter.joules(*window)
            if taken is None:
                return None, f"the power of node {rank} isn't known from {window[0]:.1f} to {window[1]:.1f} s"
            joules += taken[0]
    return (joules / sum(windows.values()), None) if windows else (None, "each of its steps reaches over a stop")
