"""What a cell cost: the node's price and its GPUs' energy, per token. Not known is None.

priced(cell, spec.prices); with_energy(cell, read_energy(run / "samples.jsonl"))
"""

import json
import time
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ncdemo.spec.common import Prices
from ncdemo.spec.follow import last_records
from ncdemo.spec.result import Cell, GpuSample, Sample
from ncdemo.spec.sizes import find

LONGEST_GAP_S = 5.0
"""Between two samples: over a longer one the power isn't known."""
Series = Sequence[tuple[float, float | None]]
"""(seconds since the run's clock zero, sum over all GPUs), ascending; None where a GPU didn't tell."""


class Energy(NamedTuple):
    """What the samples say of the GPUs' energy."""

    power_w: Series
    counter_j: Series
    """Sum of the GPUs' own counters, which miss nothing between two samples."""


NO_ENERGY = Energy((), ())


def priced(cell: Cell, prices: Prices | None) -> Cell:
    """Return the cell with USD per million output tokens, by the node's price x the window."""
    size = find(prices.vm_size) if prices else None
    if size is None or not cell.output_tokens or cell.window_s is None:
        return cell
    assert prices
    hours_per_mtok = cell.window_s / 3600 / cell.output_tokens * 1e6
    hourly, spot = size.price(prices.region), size.spot_usd_per_h
    return cell.model_copy(
        update={
            "usd_per_mtok": hourly * hours_per_mtok if hourly is not None else None,
            "usd_per_mtok_spot": (spot[0] * hours_per_mtok, spot[1] * hours_per_mtok) if spot else None,
        }
    )


def with_energy(cell: Cell, energy: Energy) -> Cell:
    """Return the cell with the energy of its window and per output token: by the GPUs' counters where they count, else by their power."""
    if cell.start_s is None or cell.window_s is None or not cell.output_tokens:
        return cell
    start_s, end_s = cell.start_s, cell.start_s + cell.window_s
    joules = growth(energy.counter_j, start_s, end_s)
    if joules is None:
        joules = integral(energy.power_w, start_s, end_s)
    return cell.model_copy(update={"energy_j": joules, "energy_j_per_token": joules / cell.output_tokens if joules is not None else None})


def read_energy(path: Path) -> Energy:
    """Return power and counters in a run's samples; a torn last line is left out, and a sample for which NVML was too busy."""
    power: list[tuple[float, float | None]] = []
    counter: list[tuple[float, float | None]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            sample = Sample(**json.loads(line))
        except ValueError:
            continue
        if sample.gpus and all(gpu == GpuSample(index=gpu.index) for gpu in sample.gpus):
            continue
        power.append((sample.time_s, _sum([gpu.power_w for gpu in sample.gpus])))
        counter.append((sample.time_s, _sum([gpu.energy_j for gpu in sample.gpus])))
    return Energy(power, counter)


def settle(path: Path, time_s: float, period_s: float) -> None:
    """Wait until the samples of a run with GPUs reach `time_s`, as the sampler writes up to a second late; no longer than 3 s."""
    end_s = time.monotonic() + min(3.0, period_s + 1.0)
    while (last := next(last_records(path), {})).get("gpus") and last.get("time_s", 0.0) < time_s and time.monotonic() < end_s:
        time.sleep(0.05)


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None


def growth(counter: Series, start_s: float, end_s: float) -> float | None:
    """Return how much a counter grew between two times, its ends interpolated. None where samples don't cover them, or it was reset."""
    edges = [_at(counter, start_s), _at(counter, end_s)]
    if edges[0] is None or edges[1] is None or edges[1] < edges[0]:
        return None
    within = [value for at, value in counter if start_s <= at <= end_s]
    whole = None not in within and all(a <= b for a, b in pairwise(value for value in within if value is not None))
    return edges[1] - edges[0] if whole else None


def _at(counter: Series, time_s: float) -> float | None:
    """Return its value at a time by the samples around it; None when one lacks, they are far apart, or it was reset between."""
    after = bisect_left(counter, time_s, key=lambda sample: sample[0])
    if not 0 < after < len(counter):
        return None
    (t0, v0), (t1, v1) = counter[after - 1], counter[after]
    if v0 is None or v1 is None or v1 < v0 or t1 - t0 > LONGEST_GAP_S:
        return None
    return v0 + (v1 - v0) * (time_s - t0) / (t1 - t0)


def integral(power: Series, start_s: float, end_s: float) -> float | None:
    """Return joules between two times, by trapezoids with the ends interpolated. None where samples don't cover the window."""
    times = [at for at, _ in power]
    first, last = bisect_left(times, start_s) - 1, bisect_left(times, end_s)
    if first < 0 or last >= len(power):
        return None
    joules = 0.0
    for (t0, w0), (t1, w1) in pairwise(power[first : last + 1]):
        if w0 is None or w1 is None or t1 - t0 > LONGEST_GAP_S:
            return None
        a, b = max(t0, start_s), min(t1, end_s)
        slope = (w1 - w0) / (t1 - t0)
        joules += (b - a) * (w0 + slope * ((a + b) / 2 - t0))
    return joules
