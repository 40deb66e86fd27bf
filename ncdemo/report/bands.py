"""Many curves to one: the lowest, the mean and the highest of them over time.

x, low, mean, high = band([(time_s, cpu_pct), ...])
"""

import numpy as np

from ncdemo.report.columns import BUCKETS


def band(curves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return times, and at each the lowest, mean and highest curve: of each curve the mean of equal stretches of time, BUCKETS at most.

    A curve counts where it was measured, so the mean is of those that were; where none was, all three are NaN. A stretch holds two
    readings of a curve of median length, so that curves read at other moments are compared, not their moments.
    """
    start, end = min(float(x.min()) for x, _ in curves), max(float(x.max()) for x, _ in curves)
    count = int(np.clip(np.median([len(x) for x, _ in curves]) // 2, 1, BUCKETS))
    width = (end - start) / count or 1.0
    table = np.array([_means(((x - start) / width).astype(int).clip(max=count - 1), y, count) for x, y in curves])
    found = np.full((3, count), np.nan)
    known = ~np.isnan(table).all(axis=0)
    found[:, known] = [of(table[:, known], axis=0) for of in (np.nanmin, np.nanmean, np.nanmax)]
    return start + (np.arange(count) + 0.5) * width, *found


def _means(bucket: np.ndarray, y: np.ndarray, count: int) -> np.ndarray:
    finite = np.isfinite(y)
    readings = np.bincount(bucket[finite], minlength=count)
    sums = np.bincount(bucket[finite], y[finite], minlength=count)
    means: np.ndarray = np.divide(sums, readings, out=np.full(count, np.nan), where=readings > 0)
    return means
