"""Intervals of shares: Wilson's of one, Newcombe's of the difference of two.

wilson(0.99, 1000)          # (0.9817, 0.9946): where the true share is, at 95 %
apart(0.9, 0.3, 10)         # (0.17, 0.81): where 0.9 - 0.3 is, of 10 examples each
"""

import math
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson(share: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's two-sided interval of a share of n."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def apart(a: float, b: float, examples: int) -> tuple[float, float]:
    """Return the interval of a - b at 95 %, two shares of `examples` each: Newcombe's, of Wilson's two (1998, method 10).

    It takes the two as independent. Answers to the same prompts are not: they differ less by chance, so this is wide rather than narrow.
    """
    (low_a, high_a), (low_b, high_b) = wilson(a, examples), wilson(b, examples)
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)
