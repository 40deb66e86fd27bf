"""What a cell cost: the node's price and its GPUs' energy, per token. Not known is None.

priced(cell, spec.prices); with_energy(cell, Meter.read(run / "samples.jsonl"))
"""

from ncdemo.spec.common import Prices
from ncdemo.spec.energy import Meter
from ncdemo.spec.result_bench import Cell
from ncdemo.spec.sizes import find


def priced(cell: Cell, prices: Prices | None) -> Cell:
    """Return the cell with USD per million output tokens, by the node's price x the window."""
    size = find(prices.vm_size) if prices else None
    if size is None or not cell.output_tokens or cell.window_s is None:
        return cell
    assert prices
    hours_per_mtok = cell.window_s / 3600 / cell.output_tokens * 1e6
    hourly, spot = size.price(prices.region), size.spot(prices.region)
    return cell.model_copy(
        update={
            "usd_per_mtok": hourly * hours_per_mtok if hourly is not None else None,
            "usd_per_mtok_spot": (spot[0] * hours_per_mtok, spot[1] * hours_per_mtok) if spot else None,
        }
    )


def with_energy(cell: Cell, meter: Meter) -> Cell:
    """Return the cell with the energy of its window and per output token."""
    if cell.start_s is None or cell.window_s is None or not cell.output_tokens:
        return cell
    window = cell.start_s, cell.start_s + cell.window_s
    found = meter.joules(*window) if meter.resolves(*window) else None
    joules, source = found or (None, None)
    per_token = joules / cell.output_tokens if joules is not None else None
    return cell.model_copy(update={"energy_j": joules, "energy_from": source, "energy_j_per_token": per_token})
