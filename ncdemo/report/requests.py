"""requests.jsonl to latencies per cell and the window of time each cell took.

The percentiles in the tables are the record's; what is drawn here is every request, so that the shape is seen.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ncdemo.spec.result_bench import load_of, subject_of

METRICS = ("ttft_s", "tpot_s", "itl_s", "e2e_s")


class CellKey(NamedTuple):
    subject: str
    """As Cell.subject."""
    model: str
    load: str
    """As Cell.load."""
    repeat: int


@dataclass
class Latencies:
    """One cell's requests: values in seconds, one per request (itl_s: one per token after the first chunk)."""

    ttft_s: "array[float]" = field(default_factory=lambda: array("d"))
    """In an open loop since the request was due."""
    tpot_s: "array[float]" = field(default_factory=lambda: array("d"))
    itl_s: "array[float]" = field(default_factory=lambda: array("d"))
    e2e_s: "array[float]" = field(default_factory=lambda: array("d"))
    start_s: float | None = None
    """First send."""
    end_s: float | None = None
    """Last token."""
    errors: Counter[str] = field(default_factory=Counter)


def to_latencies(batches: Iterable[list[dict[str, Any]]], problems: list[str]) -> dict[CellKey, Latencies]:
    """Group requests by cell, in file order."""
    cells: dict[CellKey, Latencies] = {}
    strange = 0
    for batch in batches:
        for request in batch:
            try:
                key = _key(request)
                cell = cells.get(key) or Latencies()
                _add(cell, request)
                cells[key] = cell
            except (KeyError, TypeError, ValueError, ZeroDivisionError):
                strange += 1
    if strange:
        problems.append(f"requests.jsonl: {strange} records lack what a request needs; they are left out.")
    return cells


def _key(request: dict[str, Any]) -> CellKey:
    setting, concurrency = request.get("setting"), request["concurrency"]
    load = load_of(setting, None if concurrency is None and setting else int(concurrency))
    return CellKey(subject_of(str(request["engine"]), request.get("variant")), str(request["model"]), load, int(request["repeat"]))


def _add(cell: Latencies, request: dict[str, Any]) -> None:
    """Add one request, or raise before anything of it is added."""
    chunks, tokens = [_finite(at) for at in request["chunk_s"]], request["chunk_tokens"] or []
    start = _finite(request["sent_s"])
    end = chunks[-1] if chunks else start
    gaps = [((after - before) / n, n) for before, after, n in zip(chunks, chunks[1:], tokens[1:], strict=False)]
    found = {name: _finite(request[name]) for name in ("ttft_s", "tpot_s", "e2e_s") if request.get(name) is not None}
    if request["concurrency"] is None and request.get("ttft_from_schedule_s") is not None:
        found["ttft_s"] = _finite(request["ttft_from_schedule_s"])
    ok = request["ok"]
    cell.start_s = start if cell.start_s is None else min(cell.start_s, start)
    cell.end_s = end if cell.end_s is None else max(cell.end_s, end)
    if not ok:
        cell.errors[str(request.get("error") or "no reason given")] += 1
        return
    for name, value in found.items():
        getattr(cell, name).append(value)
    for gap, n in gaps:
        cell.itl_s.extend([gap] * int(n))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(value)
    return float(value)
