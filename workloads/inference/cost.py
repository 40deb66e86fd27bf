"""What a cell cost: the node's price and its GPUs' energy, per token. Not known is None.

priced(cell, spec.prices); with_energy(cells, read_power(run / "samples.jsonl"))
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ncdemo.spec.common import Prices
from ncdemo.spec.result import Cell, Sample
from ncdemo.spec.sizes import find

LONGEST_GAP_S = 5.0
"""Between two samples: over a longer one the power isn't known."""
Power = Sequence[tuple[float, float | None]]
"""(seconds since the run's clock zero, watts of all GPUs), ascending; None where a GPU didn't tell."""


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


def with_energy(cell: Cell, power: Power) -> Cell:
    """Return the cell with the energy of its window and per output token."""
    if cell.start_s is None or cell.window_s is None or not cell.output_tokens:
        return cell
    joules = integral(power, cell.start_s, cell.start_s + cell.window_s)
    return cell.model_copy(update={"energy_j": joules, "energy_j_per_token": joules / cell.output_tokens if joules is not None else None})


def read_power(path: Path) -> Power:
    """Return the power in a run's samples; a torn last line is left out."""
    found: list[tuple[float, float | None]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            sample = Sample(**json.loads(line))
        except ValueError:
            continue
        watts = [gpu.power_w for gpu in sample.gpus]
        found.append((sample.time_s, sum(w for w in watts if w is not None) if watts and None not in watts else None))
    return found


def integral(power: Power, start_s: float, end_s: float) -> float | None:
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
