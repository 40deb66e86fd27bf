"""What a cell cost: the node's price and its GPUs' energy, per token. Not known is None.

priced(cell, spec.prices); with_energy(cell, read_power(run / "samples.jsonl"))
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
Power = Sequence[tuple[float, float | None, float | None]]
"""(seconds since the run's clock zero, watts, joules on the counters) of all GPUs, ascending; None where one didn't tell."""


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
    """Return the cell with the energy of its window and per output token: by the GPUs' own counters where all have one, else by power."""
    if cell.start_s is None or cell.window_s is None or not cell.output_tokens:
        return cell
    end_s = cell.start_s + cell.window_s
    joules, source = counted(power, cell.start_s, end_s), "counter"
    if joules is None:
        joules, source = integral(power, cell.start_s, end_s), "power"
    if joules is None:
        return cell.model_copy(update={"energy_j": None, "energy_from": None, "energy_j_per_token": None})
    return cell.model_copy(update={"energy_j": joules, "energy_from": source, "energy_j_per_token": joules / cell.output_tokens})


def read_power(path: Path) -> Power:
    """Return what a run's samples say of power and energy; a torn last line is left out."""
    found: list[tuple[float, float | None, float | None]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            sample = Sample(**json.loads(line))
        except ValueError:
            continue
        found.append((sample.time_s, _sum([gpu.power_w for gpu in sample.gpus]), _sum([gpu.energy_j for gpu in sample.gpus])))
    return found


def _sum(values: list[float | None]) -> float | None:
    """Return the sum over all GPUs; None without a GPU, or where one is silent."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def counted(power: Power, start_s: float, end_s: float) -> float | None:
    """Return joules between two times by the counters, interpolated at both ends; a silent moment between them costs nothing.

    None where samples with a counter don't stand close around both ends, or a counter went back (the driver was loaded anew).
    """
    known = [(at, joules) for at, _, joules in power if joules is not None]
    if any(b < a for (_, a), (_, b) in pairwise(known)):
        return None
    ends = [_at(known, at_s) for at_s in (start_s, end_s)]
    return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]


def _at(known: Sequence[tuple[float, float]], at_s: float) -> float | None:
    after = bisect_left(known, (at_s,))
    if not 0 < after < len(known):
        return None
    (t0, e0), (t1, e1) = known[after - 1], known[after]
    return e0 + (e1 - e0) * (at_s - t0) / (t1 - t0) if t1 - t0 <= LONGEST_GAP_S else None


def integral(power: Power, start_s: float, end_s: float) -> float | None:
    """Return joules between two times, by trapezoids of power with the ends interpolated. None where samples don't cover the window."""
    times = [at for at, _, _ in power]
    first, last = bisect_left(times, start_s) - 1, bisect_left(times, end_s)
    if first < 0 or last >= len(power):
        return None
    joules = 0.0
    for (t0, w0, _), (t1, w1, _) in pairwise(power[first : last + 1]):
        if w0 is None or w1 is None or t1 - t0 > LONGEST_GAP_S:
            return None
        a, b = max(t0, start_s), min(t1, end_s)
        slope = (w1 - w0) / (t1 - t0)
        joules += (b - a) * (w0 + slope * ((a + b) / 2 - t0))
    return joules
