"""The ledger of a benchmark, cells.jsonl: one line per finished cell, read back whole after any kill.

ledger = read_ledger(run / "cells.jsonl")       # ledger.entries, ledger.whole_bytes
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from ncdemo.spec.base import SpecError
from ncdemo.spec.record import Record
from ncdemo.spec.result_bench import Cell
from ncdemo.spec.sweep import without_repeat

CELLS_FILE = "cells.jsonl"
REQUESTS_FILE = "requests.jsonl"
DISK_FULL = "disk_full"
"""The failure of a cell that ended its sweep, as no later one could have been kept either."""


class LedgerHead(Record):
    """First line of cells.jsonl."""

    spec_hash: str


class LedgerEntry(Record):
    """A finished cell. A cell without one was not finished: what requests.jsonl holds of it is dropped."""

    key: str
    """Names the cell in the plan (ncdemo/spec/sweep.py)."""
    cell: Cell
    requests_bytes: int
    """Length of requests.jsonl with this cell."""
    end_s: float
    """The run's clock when it was written."""
    wall_s: float
    """Seconds that the cell took, its reset and records included."""


@dataclass
class LedgerLines:
    spec_hash: str | None = None
    """None: not even the head is whole."""
    entries: list[LedgerEntry] = field(default_factory=list)
    whole_bytes: int = 0
    """What comes after them is torn."""
    last_bytes: int = 0
    """Of them, the last line's."""


def read_ledger(path: Path) -> LedgerLines:
    """Return the whole lines; a torn last one is left out. Raise SpecError for a line within that can't be read."""
    found = LedgerLines()
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn")
            if number == 1:
                found.spec_hash = LedgerHead.model_validate_json(line).spec_hash
            else:
                found.entries.append(LedgerEntry.model_validate_json(line))
        except (ValueError, ValidationError):
            if number < len(lines):
                raise SpecError(f"{path}:{number}: not a finished cell, though lines follow it; start a new run") from None
            break
        found.whole_bytes += len(line)
        found.last_bytes = len(line)
    return found


@dataclass(frozen=True)
class Earlier:
    """What a run of the same spec took."""

    folder: Path
    wall_s: dict[str, float]
    """Of each finished cell, by its key; reset and records included, the engine's start not."""


def earlier(spec_hash: str, runs: Path, done: Container[str] = ()) -> Earlier | None:
    """Return the run of the same spec that finished most cells that aren't done, of several the newest; None without one."""
    found = []
    for path in sorted(runs.glob(f"*/{CELLS_FILE}"), key=lambda path: path.stat().st_mtime):
        try:
            ledger = read_ledger(path)
        except (SpecError, OSError):
            continue  # of another version, or not ours to read
        took = {key: wall_s for key, wall_s in walls(ledger.entries).items() if key not in done}
        if ledger.spec_hash == spec_hash and took:
            found.append(Earlier(path.parent, took))
    return max(reversed(found), key=lambda run: len(run.wall_s), default=None)


def resumable(folder: Path, spec_hash: str) -> LedgerLines:
    """Return what a run of this spec has finished and goes on from. Raise SpecError for a folder with which it can't go on."""
    lines, requests = read_ledger(folder / CELLS_FILE), folder / REQUESTS_FILE
    if lines.entries and lines.entries[-1].cell.failure == DISK_FULL:  # the cell to go on with
        lines.entries.pop()
        lines.whole_bytes -= lines.last_bytes
    size = requests.stat().st_size if requests.exists() else 0
    if lines.spec_hash is None and size > 0:
        raise SpecError(f"{folder}: holds requests of a version that kept no ledger, so it can't go on; start a new run")
    if lines.spec_hash not in (None, spec_hash):
        raise SpecError(f"{folder}: was begun with another spec ({lines.spec_hash}, this is {spec_hash}); start a new run, or use its own")
    whole = lines.entries[-1].requests_bytes if lines.entries else 0
    if size < whole:
        raise SpecError(f"{requests}: is shorter than its ledger says ({whole} bytes): it was cut by hand; start a new run")
    return lines


def walls(entries: Iterable[LedgerEntry]) -> dict[str, float]:
    """Return the seconds that cells took, by key, without those that failed."""
    return {entry.key: entry.wall_s for entry in entries if not entry.cell.error}


def usual_s(key: str, wall_s: Mapping[str, float]) -> float | None:
    """Return what a cell may take: the median over those of its repeats that are known; None without one."""
    same = [seconds for other, seconds in wall_s.items() if without_repeat(other) == without_repeat(key)]
    return median(same) if same else None
