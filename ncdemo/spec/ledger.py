"""The ledger of a benchmark, cells.jsonl: one line per finished cell, read back whole after any kill.

ledger = read_ledger(run / "cells.jsonl")       # ledger.entries, ledger.whole_bytes
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from ncdemo.spec.base import SpecError
from ncdemo.spec.record import Record
from ncdemo.spec.result_bench import Cell

CELLS_FILE = "cells.jsonl"


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
