"""What crosses between run.py and its processes. A module of its own, since pickle writes the names of modules."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from workloads.inference.load.plan import Request, Target

START = struct.Struct("q")
"""The common start, on the clock of perf_counter_ns, which all processes of a machine share."""


@dataclass(frozen=True)
class Share:
    """What one process does of a plan. due_ns: offsets from the start; None: a closed loop of `concurrency`."""

    target: Target
    requests: Sequence[Request]
    due_ns: Sequence[int] | None
    concurrency: int
    connections: int
    core: int | None
    parent: int


@dataclass(frozen=True)
class Cost:
    window_s: float
    cpu_window_s: float
    cpu_parse_s: float
    events: int
    reads: int
    opened: int
    opened_in_window: int
    hung: bool
    """The share was given up, as in Report.hung."""
