"""The JSON Lines files of a run directory: whole records, in order, each once, also over a time in which its disk is full or read-only.

records = Records(folder, log.warning)
records.append("steps.jsonl", StepRecord(...))
records.settle(wait_s=300)      # what a full disk held back is written, or NoRoom says what is lost
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ncdemo.spec.record import Record
from ncdemo.spec.result import DiskFull
from workloads.metrics.lines import Lines
from workloads.room import AGAIN_S, NoRoom, Reserve, may_pass


class Records:
    """One process writes them, from any of its threads."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """`say` is told when the disk is full, and when it has room again."""
        self.reserve = Reserve(folder)
        self._folder, self._say = folder, say
        self._files: dict[str, Lines] = {}
        self._one = threading.Lock()

    def append(self, file: str, record: Record) -> None:
        """Add one JSON line; it is in the file when this returns, so a killed run keeps it. While the disk is full it is held in memory."""
        line = record.model_dump_json().encode() + b"\n"
        with self._one:
            lines = self._files.get(file)
            if lines is None:
                lines = self._files[file] = Lines(self._folder / file, self._say)
            error = lines.write([line])
        if error and not may_pass(error):
            raise error

    def settle(self, wait_s: float) -> None:
        """Write what a full disk held back, with the reserve given up for it; wait so long for room. Raise NoRoom for what is lost."""
        if self._flush():
            return
        self.reserve.free()
        try:
            if self._flush():
                return
            refused = next(lines.outages[-1] for lines in self._files.values() if lines.held)
            if wait_s:
                self._say(f"{self._folder}: {refused.why}; {refused.remedy}: its last records wait for {wait_s:.0f} s")
            until = time.monotonic() + wait_s
            while time.monotonic() < until:
                time.sleep(AGAIN_S)
                if self._flush():
                    return
        finally:
            self.reserve.keep()  # for result.json, before the sampler's last samples take it
        lost = ", ".join(f"{lines.held} records of {file}" for file, lines in self._files.items() if lines.held)
        raise NoRoom(f"{self._folder}: {refused.why}, so {lost} are lost; {refused.remedy} and start the same command again")

    def outages(self, zero_ns: int) -> list[DiskFull]:
        """Return when records found no room, by a clock with this zero (perf_counter_ns); what still waits is lost."""
        found = []
        for file, lines in self._files.items():
            for outage in lines.outages:
                over = outage.end_s is not None
                found.append(DiskFull(
                    file=file, why=outage.why, start_s=outage.start_s - zero_ns / 1e9,
                    end_s=None if outage.end_s is None else outage.end_s - zero_ns / 1e9,
                    held=outage.held, lost=outage.lost + (0 if over else lines.held),
                ))  # fmt: skip
        return sorted(found, key=lambda outage: outage.start_s)

    def _flush(self) -> bool:
        """Write what is held; say whether nothing is left."""
        with self._one:
            return not [error for lines in self._files.values() if (error := lines.flush())]
