"""Energy of a stretch of a run from its hardware samples: all GPUs of the node, by their counters or by their power.

Meter.read(run / "samples.jsonl").joules(1.0, 3.0)    # (412.7, "counter")
"""

import json
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from ncdemo.spec.attempts import Attempts
from ncdemo.spec.record import Record
from ncdemo.spec.result import GpuProcess, GpuSample, Sample

LONGEST_GAP_S, PERIODS = 5.0, 1.5
"""Between two samples, and of the sampler's period where that is more: over a longer gap the power isn't known, nor the counter at a
moment within it."""
Source = Literal["counter", "power"]


def _struct(model: type[Record], **nested: Any) -> Any:
    """Return what msgspec decodes a record to: the model's fields, and no others."""
    fields: list[Any] = []
    for name, field in sorted(model.model_fields.items(), key=lambda item: not item[1].is_required()):
        kind = nested.get(name, field.annotation)
        fields.append((name, kind) if field.is_required() else (name, kind, field.default))
    return msgspec.defstruct(model.__name__, fields, forbid_unknown_fields=True, gc=False)


def _list(of: Any) -> Any:
    return list[of]


_gpu = _struct(GpuSample, processes=_list(_struct(GpuProcess)) | None)
_decode = msgspec.json.Decoder(_struct(Sample, gpus=_list(_gpu))).decode


def _sample(line: str) -> Any:
    """Return a sample, by msgspec where it can: in a fifth of the model's time. Raise ValueError where it is none."""
    try:
        return _decode(line)
    except (msgspec.MsgspecError, ValueError):
        return Sample(**json.loads(line))


class Meter:
    """readings: (seconds since the run's clock zero, watts, joules on the counters) of all GPUs, ascending; None where one was silent.

    attempts: of each reading, which attempt took it, ascending; left out, one took all. reset: attempts in which a GPU's counter went
    back. period_s: between two samples.
    """

    def __init__(
        self,
        readings: Sequence[tuple[float, float | None, float | None]],
        attempts: Sequence[int] | None = None,
        *,
        reset: Collection[int] = (),
        period_s: float = 0.0,
    ) -> None:
        self._longest_gap_s = max(LONGEST_GAP_S, PERIODS * period_s)
        self._attempts = [0] * len(readings) if attempts is None else list(attempts)
        self._power = [(at, watts) for at, watts, _ in readings]
        self._times = [at for at, _ in self._power]
        self._counter = [
            (at, joules, attempt) for (at, _, joules), attempt in zip(readings, self._attempts, strict=True) if joules is not None
        ]
        # Where it went back, the driver was loaded anew.
        broken = set(reset) | {one for (_, a, one), (_, b, next_one) in pairwise(self._counter) if one == next_one and b < a}
        self._counter = [reading for reading in self._counter if reading[2] not in broken]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the meter of a run's samples; without the file, one that knows nothing.

        A torn last line is left out, and a sample for which NVML was too busy.
        """
        readings: list[tuple[float, float | None, float | None]] = []
        attempts, number, counters, period_s = [], Attempts(), _Counters(), 0.0
        first: tuple[int, int, float] | None = None
        for line in _lines(path):
            try:
                sample = _sample(line)
            except ValueError:
                continue
            attempt = number.of(sample.tick, sample.scheduling)
            if sample.tick is not None:
                if first is None or first[0] != attempt:
                    first = (attempt, sample.tick, sample.time_s)
                elif sample.tick > first[1]:
                    period_s = (sample.time_s - first[2]) / (sample.tick - first[1])
            if sample.gpus and all(gpu == type(gpu)(index=gpu.index) for gpu in sample.gpus):
                continue
            counters.add(attempt, sample.gpus)
            readings.append((sample.time_s, _sum([gpu.power_w for gpu in sample.gpus]), _sum([gpu.energy_j for gpu in sample.gpus])))
            attempts.append(attempt)
        return cls(readings, attempts, reset=counters.reset, period_s=period_s)

    @property
    def measured(self) -> bool:
        """Whether any reading says power or energy."""
        return bool(self._counter) or any(watts is not None for _, watts in self._power)

    def resolves(self, start_s: float, end_s: float) -> bool:
        """Say whether a stretch is at least as long as the gaps between samples that it begins and ends in.

        Within one gap energy is spread evenly: a shorter stretch would get the share of what came before or after it.
        """
        ends = (bisect_left(self._times, at_s) for at_s in (start_s, end_s))
        gaps = (self._times[i] - self._times[i - 1] for i in ends if 0 < i < len(self._times))
        return max(gaps, default=0.0) <= (end_s - start_s) * (1 + 1e-9)

    def parted(self, start_s: float, end_s: float) -> bool:
        """Say whether a stretch reaches over the end of an attempt, so that its energy can't be known."""
        first, last = bisect_left(self._times, start_s) - 1, bisect_left(self._times, end_s)
        return first >= 0 and last < len(self._times) and self._attempts[first] != self._attempts[last]

    def joules(self, start_s: float, end_s: float) -> tuple[float, Source] | None:
        """Return the energy between two times and where it is from; None where neither the counters nor the power are known,
        as over the end of an attempt."""
        if (counted := self._counted(start_s, end_s)) is not None:
            return counted, "counter"
        if (integral := self._integral(start_s, end_s)) is not None:
            return integral, "power"
        return None

    def _counted(self, start_s: float, end_s: float) -> float | None:
        """By the counters, interpolated at both ends; a silent moment between them costs nothing."""
        first, last = self._at(start_s), self._at(end_s)
        return None if first is None or last is None or first[1] != last[1] else last[0] - first[0]

    def _at(self, at_s: float) -> tuple[float, int] | None:
        """Return what the counters said at a moment, and in which attempt."""
        after = bisect_left(self._counter, (at_s,))
        if not 0 < after < len(self._counter):
            return None
        (t0, e0, before), (t1, e1, attempt) = self._counter[after - 1 : after + 1]
        return (e0 + (e1 - e0) * (at_s - t0) / (t1 - t0), attempt) if before == attempt and t1 - t0 <= self._longest_gap_s else None

    def _integral(self, start_s: float, end_s: float) -> float | None:
        """By trapezoids of power with the ends interpolated; None where samples don't cover it."""
        first, last = bisect_left(self._times, start_s) - 1, bisect_left(self._times, end_s)
        if first < 0 or last >= len(self._power) or self._attempts[first] != self._attempts[last]:
            return None
        joules = 0.0
        for (t0, w0), (t1, w1) in pairwise(self._power[first : last + 1]):
            if w0 is None or w1 is None or t1 - t0 > self._longest_gap_s:
                return None
            a, b = max(t0, start_s), min(t1, end_s)
            slope = (w1 - w0) / (t1 - t0)
            joules += (b - a) * (w0 + slope * ((a + b) / 2 - t0))
        return joules


class _Counters:
    """Which attempts a GPU was reset in: its counter begins anew, and what it had reached is lost in the sum over all."""

    def __init__(self) -> None:
        self.reset: set[int] = set()
        self._last: dict[int, tuple[int, float]] = {}

    def add(self, attempt: int, gpus: Sequence[Any]) -> None:
        for gpu in gpus:
            if gpu.energy_j is None:
                continue
            before = self._last.get(gpu.index)
            if before and before[0] == attempt and gpu.energy_j < before[1]:
                self.reset.add(attempt)
            self._last[gpu.index] = (attempt, gpu.energy_j)


def _lines(path: Path) -> Iterator[str]:
    """Yield a file's lines, one in memory at a time: a run of days has gigabytes; none where there is no file."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file


def _sum(values: list[float | None]) -> float | None:
    """Return the sum over all GPUs; None without a GPU, or where one is silent."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
