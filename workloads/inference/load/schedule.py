"""When requests are due: a closed loop, or times that no answer can move.

poisson(rate_rps=8, count=200, seed=1).offsets_s    # 200 times, the first at 0
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ncdemo.spec.base import SpecError


@dataclass(frozen=True)
class Closed:
    """So many requests are in flight at once; the next is due when one ends."""

    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise SpecError(f"concurrency = {self.concurrency}: must be at least 1 request in flight")


@dataclass(frozen=True)
class Open:
    """Requests are due at these times after the start, in seconds, ascending; whether earlier ones have ended plays no part."""

    offsets_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(later < earlier for earlier, later in zip(self.offsets_s, self.offsets_s[1:], strict=False)):
            raise SpecError("offsets_s: must ascend; sort the requests by their time")
        if self.offsets_s and self.offsets_s[0] < 0:
            raise SpecError(
                f"offsets_s: begins with {self.offsets_s[0]}; the first must be 0 or later, as no request is due before the start"
            )


def closed(concurrency: int) -> Closed:
    return Closed(concurrency)


def constant(rate_rps: float, count: int) -> Open:
    """Return times 1/rate apart."""
    _check(rate_rps)
    return Open(tuple(i / rate_rps for i in range(count)))


def poisson(rate_rps: float, count: int, seed: int) -> Open:
    """Return arrivals without memory: exponential gaps, coefficient of variation 1."""
    return gamma(rate_rps, 1.0, count, seed)


def gamma(rate_rps: float, burstiness: float, count: int, seed: int) -> Open:
    """Return gamma-distributed gaps of shape `burstiness` (vLLM's word): 1 is Poisson, below it bursts, above it evenness.

    The coefficient of variation of the gaps is burstiness ** -0.5. They are scaled to the rate that was asked for: unscaled, that
    of 64 Poisson arrivals is off by an eighth (one standard deviation), which a report would print as if it had been sent.
    """
    _check(rate_rps)
    if burstiness <= 0:
        raise SpecError(f"burstiness = {burstiness:g}: must be above 0; 1 is Poisson, lower is burstier")
    rng = random.Random(seed)
    drawn = [rng.gammavariate(burstiness, 1 / burstiness) for _ in range(count - 1)]
    scale = len(drawn) / rate_rps / (math.fsum(drawn) or 1.0)
    return Open(tuple(accumulate((gap * scale for gap in drawn), initial=0.0)) if count else ())


def replay(offsets_s: Sequence[float], speed: float = 1.0) -> Open:
    """Return a trace's own times, `speed` times as fast, the first at 0."""
    if speed <= 0:
        raise SpecError(f"speed = {speed:g}: must be above 0; 2 replays a trace twice as fast")
    first = offsets_s[0] if offsets_s else 0.0
    return Open(tuple((t - first) / speed for t in offsets_s))


def _check(rate_rps: float) -> None:
    if not 0 < rate_rps < float("inf"):
        raise SpecError(f"rate_rps = {rate_rps:g}: must be above 0 and finite; for as fast as possible take a closed loop")
