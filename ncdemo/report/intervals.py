"""Intervals of confidence for what is compared: means of logarithms, paired or not. Those of shares: ncdemo/spec/shares.py."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

from ncdemo.report.fairness import CONFIDENCE


def paired_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of x - y and half of its 95 % interval; None for one pair."""
    gaps = [a - b for a, b in zip(x, y, strict=True)]
    if len(gaps) < 2:
        return fmean(gaps), None
    return fmean(gaps), student_t(len(gaps) - 1) * math.sqrt(variance(gaps) / len(gaps))


def welch_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float | None]:
    """The same of two independent samples of unequal variance."""
    middle = fmean(x) - fmean(y)
    if min(len(x), len(y)) < 2:
        return middle, None
    a, b = variance(x) / len(x), variance(y) / len(y)
    if a + b == 0:
        return middle, 0.0
    freedom = (a + b) ** 2 / (a * a / (len(x) - 1) + b * b / (len(y) - 1))
    return middle, student_t(freedom) * math.sqrt(a + b)


def student_t(freedom: float, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t, by integrating its density (Simpson's rule) and bisection."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def inside(t: float, n: int = 2000) -> float:
        """Return P(-t < T < t). With x = tan(u) the density has no long tail."""
        end = math.atan(t)
        values: list[float] = [
            (1 + math.tan(end * i / n) ** 2 / freedom) ** (-(freedom + 1) / 2) / math.cos(end * i / n) ** 2 for i in range(n + 1)
        ]
        return 2 * scale * end / n / 3 * (values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2]))

    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return (low + high) / 2
