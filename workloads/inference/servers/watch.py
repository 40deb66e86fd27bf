"""What an engine says about itself while a cell is measured: its counters before and after, its queue every few seconds between.

    with Watch(server, lines, every_s=5.0) as watch:
        ...                                   # the load
    watch.counts(first_send_ns, last_token_ns)

The load generator's clock is in processes of its own, so this thread takes no time from it. What can't be asked is not known,
never a failure of the cell: a server that died is found by who measures.
"""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ncdemo.spec.record import Record
from ncdemo.spec.result_engine import EngineCounts, EngineSample
from ncdemo.spec.run_folder import ENGINES_FILE
from workloads.inference.servers.server import Server, ServerError

log = logging.getLogger("ncdemo.server")
COUNTERS = ("prompt_tokens", "cached_prompt_tokens", "output_tokens", "preemptions")
GAUGES = ("running", "waiting", "kv_cache_used")
ASK_S = 5.0
"""A server that takes longer for an answer gives none."""


class EngineLines:
    """What one subject says, for engines.jsonl: a line per answer. A disk that fails loses lines and nothing else."""

    def __init__(self, append: Callable[[str, Record], None], zero_ns: int, *, engine: str, model: str, variant: str | None) -> None:
        """`append` is the run's, which holds lines while its disk is full; `zero_ns` its clock's zero."""
        self._append, self._zero_ns, self._who = append, zero_ns, (engine, model, variant)

    def add(self, figures: dict[str, float | None]) -> EngineSample:
        engine, model, variant = self._who
        time_s = (time.perf_counter_ns() - self._zero_ns) / 1e9
        sample = EngineSample(time_s=round(time_s, 6), engine=engine, model=model, variant=variant, **figures)
        try:
            self._append(ENGINES_FILE, sample)
        except OSError as error:
            log.warning("%s: %s; what the engine said at %.1f s is lost", ENGINES_FILE, error, time_s)
        return sample


class Watch:
    """Asks from entering to leaving it; `counts` is then what it came to."""

    def __init__(self, server: Server, lines: EngineLines, every_s: float) -> None:
        """`every_s`: seconds between two looks at the queue; 0 for none but before and after."""
        self._server, self._lines, self._every_s = server, lines, every_s
        self._before: EngineSample | None = None
        self._after: EngineSample | None = None
        self._between: list[tuple[int, EngineSample]] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def counts(self, begin_ns: int, end_ns: int) -> EngineCounts | None:
        """Return what the engine counted between entering and leaving; None when it counts nothing that we know.

        The queue is that of the looks from `begin_ns` to `end_ns` (perf_counter_ns), the load itself without its preparation.
        """
        if self._before is None or self._after is None:
            return None
        grown = {name: _grown(getattr(self._before, name), getattr(self._after, name)) for name in COUNTERS}
        looks = [look for at_ns, look in self._between if begin_ns <= at_ns <= end_ns]
        seen = {name: [value for look in looks if (value := getattr(look, name)) is not None] for name in GAUGES}
        return EngineCounts(
            **grown,
            looks=len(looks),
            running_max=_of(max, seen["running"]),
            waiting_max=_of(max, seen["waiting"]),
            waiting_mean=_of(lambda values: sum(values) / len(values), seen["waiting"]),
            kv_cache_used_max=_of(max, seen["kv_cache_used"]),
        )

    def __enter__(self) -> Self:
        self._before = self._look()
        if self._before is not None and self._every_s:
            self._thread = threading.Thread(target=self._go_on, name="engine watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
        if kind is None and self._before is not None:
            self._after = self._look()

    def _go_on(self) -> None:
        while not self._ended.wait(self._every_s):
            at_ns = time.perf_counter_ns()
            if (look := self._look()) is not None:
                self._between.append((at_ns, look))

    def _look(self) -> EngineSample | None:
        try:
            figures = self._server.figures(ASK_S)
        except (ServerError, ValueError) as error:
            log.info("the engine's own metrics: %s", error)
            return None
        return self._lines.add(figures) if any(value is not None for value in figures.values()) else None


def _grown(before: float | None, after: float | None) -> int | None:
    """Return how much a counter grew; None for one that is not there, or began again. Some appear when they first count something."""
    return round(after - (before or 0.0)) if after is not None and after >= (before or 0.0) else None


def _of(pick: Callable[[list[float]], float], values: list[float]) -> float | None:
    return pick(values) if values else None
