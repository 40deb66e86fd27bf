"""Files of whole lines that outlive a disk that is full or read-only: what it refuses is held in memory, in order, and written later.

    steps = Lines("steps.jsonl", log.warning); steps.write([b"{}\\n"]); steps.flush()
    steps.outages       # when there was no room, for how long, how many lines waited

One process writes a file, through one Lines. The sampler imports this: nothing heavy here.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workloads.room import remedy

MOST_BYTES = 64 << 20
"""Lines held for a full disk: 200,000 training steps. Later ones are lost and counted."""
AGAIN_S = 1.0
"""Between two tries of a full disk: each may take long where the disk is a network's."""
AT_ONCE = 500
"""Held lines that are written together."""


@dataclass
class Outage:
    """A time without room. Stamps are time.perf_counter's."""

    start_s: float
    why: str
    remedy: str
    end_s: float | None = None
    """None: there is still none."""
    held: int = 0
    """Lines that had to wait."""
    lost: int = 0
    """Lines for which memory had no room either."""


class Lines:
    """A file that holds whole lines only, each once."""

    def __init__(self, path: str | Path, say: Callable[[str], None], *, keep_open: bool = False) -> None:
        """`say` is told of each outage's beginning and end. `keep_open`: for pipes, and where tenths of a millisecond count.

        Closing after each write is what makes a network's mount send it, and tell its errors.
        """
        self.outages: list[Outage] = []
        self._path, self._say, self._keep_open = os.fspath(path), say, keep_open
        self._held: list[bytes] = []
        self._held_bytes, self._again_s = 0, 0.0
        self._full: Outage | None = None
        self._cut: int | None = None
        self._file: int | None = None
        self._torn: bytes | None = None

    @property
    def held(self) -> int:
        """Lines that are not in the file yet."""
        return len(self._held)

    @property
    def lost(self) -> int:
        """Lines that will never be in it."""
        return sum(outage.lost for outage in self.outages)

    def write(self, lines: list[bytes]) -> OSError | None:
        """Append lines that end with a newline, now or when there is room; return the error of a disk that takes none now."""
        full = self._full
        if full is None:
            self._hold(lines)
            return self.flush()
        for line in lines:
            if self._held_bytes + len(line) > MOST_BYTES:
                full.lost += 1
                if full.lost == 1:
                    self._say(f"{self._path}: still no room, and {MOST_BYTES >> 20} MiB are held; lines are lost until there is")
            else:
                full.held += 1
                self._hold([line])
        return self.flush() if time.perf_counter() >= self._again_s else None

    def flush(self) -> OSError | None:
        """Write what is held, in order; return the error of a disk that doesn't take all of it."""
        while self._held:
            try:
                done = self._put(self._held[:AT_ONCE])
            except OSError as error:
                self._begin(error)
                return error
            rest = self._held[done:]
            # Both at once: a signal whose handler raises finds a line written and not held, or held and cut off when it is written again.
            self._cut, self._held = None, rest
            self._held_bytes = sum(map(len, rest))
        if self._full:
            self._end(self._full)
        return None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def open(self) -> int:
        """Return the open file. Raise OSError where there can be none."""
        if self._file is not None:
            return self._file
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self._torn is None:
            found = os.fstat(file)
            torn = stat.S_ISREG(found.st_mode) and found.st_size and os.pread(file, 1, found.st_size - 1) != b"\n"
            self._torn = b"\n" if torn else b""  # a killed writer left half a line: closed first, it spoils no other
        if self._keep_open:
            self._file = file
        return file

    def _hold(self, lines: list[bytes]) -> None:
        self._held.extend(lines)
        self._held_bytes += sum(map(len, lines))

    def _put(self, lines: list[bytes]) -> int:
        """Append lines; return how many of them are in the file, one at least. Raise OSError.

        After an error nobody knows what a disk took: the file is cut to its length before, and the lines are written again.
        """
        file = self.open()
        try:
            found = os.fstat(file)
            size = found.st_size
            if self._cut is not None and stat.S_ISREG(found.st_mode) and size > self._cut:
                os.ftruncate(file, self._cut)
                size = self._cut
            self._cut = size
            data = (self._torn or b"") + b"".join(lines)
            written = os.write(file, data)
            whole = written if written == len(data) else data.rfind(b"\n", 0, written) + 1
            done = len(lines) if whole == len(data) else data.count(b"\n", 0, whole) - len(self._torn or b"")
            if whole < written:
                os.ftruncate(file, size + whole)
            if done <= 0:  # not one whole line fits, which is no error to write(2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            if not self._keep_open:
                os.close(file)
        self._torn = b""
        return done

    def _begin(self, error: OSError) -> None:
        self._again_s = time.perf_counter() + AGAIN_S
        if self._full is None:
            full = self._full = Outage(time.perf_counter(), error.strerror or str(error), remedy(error), held=len(self._held))
            self.outages.append(full)
            self._say(f"{self._path}: {full.why}; {full.remedy}. Until then its lines are held in memory, and the work goes on")

    def _end(self, full: Outage) -> None:
        full.end_s = time.perf_counter()
        self._full = None
        lost = f", {full.lost} are lost" if full.lost else ""
        self._say(f"{self._path}: there is room again after {full.end_s - full.start_s:.1f} s; {full.held} lines were held{lost}")
