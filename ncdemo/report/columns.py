"""Records to columns of numbers, and columns to few enough points to draw. Absent or not a number is NaN, a gap in the curve."""

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

Columns = dict[str, np.ndarray]
BUCKETS = 300


def to_columns(batches: Iterable[list[dict[str, Any]]], names: Sequence[str], needed: int = 1) -> Columns:
    """Return one float64 array per name, in file order; records without the first `needed` names are left out."""
    return stack([rows_of(batch, names) for batch in batches if batch], names, needed)


def stack(blocks: list[np.ndarray], names: Sequence[str], needed: int = 1) -> Columns:
    table = np.concatenate(blocks) if blocks else np.empty((0, len(names)))
    whole = ~np.isnan(table[:, :needed]).any(axis=1)
    if not whole.all():
        table = table[whole]
    return {name: table[:, i] for i, name in enumerate(names)}


def join(blocks: list[Columns], names: Sequence[str], needed: int = 1) -> Columns:
    """Return what `stack` does, of columns, and take them out of the blocks: no more than one of them is in memory twice."""
    found = {name: np.concatenate([block.pop(name) for block in blocks]) if blocks else np.empty(0) for name in names}
    whole = ~np.isnan([found[name] for name in names[:needed]]).any(axis=0)
    return found if whole.all() else {name: column[whole] for name, column in found.items()}


def rows_of(batch: Sequence[dict[str, Any]], names: Sequence[str]) -> np.ndarray:
    """Return [len(batch), len(names)] float64; infinities are NaN too, because no axis can show them."""
    try:
        return table_of(list(map(itemgetter(*names), batch)))
    except (KeyError, TypeError, ValueError):
        return table_of([[_number(item.get(name)) for name in names] for item in batch])


def table_of(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Return rows of numbers as float64; None and infinities are NaN."""
    try:
        block = np.fromiter(chain.from_iterable(rows), dtype=float, count=len(rows) * len(rows[0])).reshape(len(rows), -1)
    except TypeError:  # a None; half as quick
        block = np.array(rows, dtype=float)
    block[~np.isfinite(block)] = np.nan
    return block


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def decimate(x: np.ndarray, y: np.ndarray, buckets: int = BUCKETS) -> tuple[np.ndarray, np.ndarray]:
    """Keep the smallest and the largest value of each of at most `buckets` runs of points, so that no peak is lost; and every run's gap."""
    if len(x) <= 2 * buckets:
        return x, y
    size = -(-len(y) // buckets)
    runs = np.full((-(-len(y) // size), size), np.nan)
    runs.flat[: len(y)] = y
    first = np.arange(len(runs)) * size
    smallest = np.where(np.isnan(runs), np.inf, runs).argmin(axis=1)
    largest = np.where(np.isnan(runs), -np.inf, runs).argmax(axis=1)
    keep = np.unique([first + smallest, first + largest])
    return x[keep], y[keep]


def ecdf(values: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted values and the share of values at or below each; of many, evenly spaced ranks with both ends."""
    ordered = np.sort(values)
    ranks = np.arange(len(ordered))
    if len(ordered) > points:
        ranks = np.unique(np.linspace(0, len(ordered) - 1, points).astype(int))
    return ordered[ranks], (ranks + 1) / len(ordered)
