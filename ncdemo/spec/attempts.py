"""Which attempt at a run took a sample, told by what its sampler writes: Sample.tick and Sample.scheduling.

The run's clock leaves out the pause between two attempts, a device's counters don't, and another machine has others: no difference
between samples of two attempts means anything.

    number = Attempts(); attempts = [number.of(sample.tick, sample.scheduling) for sample in samples]
"""

from typing import Any


def is_first(tick: Any, scheduling: Any) -> bool:
    """Say whether a sample is the first of its attempt: it alone has `scheduling`, and ticks count from 0, of which the first may be lost."""
    return bool(scheduling) or tick == 0


def again(step: Any) -> Any:
    """Say whether a sample is of a later attempt than the one before, by the step between their ticks: those of one attempt ascend.

    Of a number or, element by element, of an array; NaN, where there is none before, is False.
    """
    return step <= 0


class Attempts:
    """Numbers the attempts from 0, of samples in their order; those that are no attempt's first may be left out."""

    def __init__(self) -> None:
        self._number, self._tick, self._any = 0, -1, False

    def of(self, tick: Any, scheduling: Any) -> int:
        """Return the attempt of the next sample."""
        counted = type(tick) is int  # else one more at an attempt's end, or of an older version
        if self._any and (is_first(tick, scheduling) or (counted and again(tick - self._tick))):
            self._number += 1
        if counted:
            self._tick = tick
        self._any = True
        return self._number
