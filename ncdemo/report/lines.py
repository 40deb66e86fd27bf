"""JSON Lines of a run that may have been killed: every whole record, and a sentence for what is not whole.

for batch in records(run / "steps.jsonl", problems): ...
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

CHUNK_BYTES = 1 << 17
"""Parsed in one call: enough to save the calls, few enough to stay in the cache with what they become (1 MiB takes a third longer)."""
Typed = Callable[[memoryview], list[Any]]


@dataclass
class Lines:
    """How many were read, and which of them, from 1, are no records."""

    count: int = 0
    bad: list[int] = field(default_factory=list)

    def add(self, later: "Lines") -> None:
        self.bad += [self.count + number for number in later.bad]
        self.count += later.count

    def problem(self, name: str) -> str | None:
        """Return the sentence for what could not be read of a file, from its first line to its last; None without any."""
        if self.bad == [self.count]:
            return f"{name}: the last line (line {self.count}) is torn: the run was cut off while it wrote; the line is left out."
        if self.bad:
            return f"{name}: {len(self.bad)} lines are not JSON records (the first is line {self.bad[0]}); they are left out."
        return None


def records(path: Path, problems: list[str], typed: Typed | None = None) -> Iterator[list[Any]]:
    """Yield lists of records; append one sentence to `problems` for lines that could not be read. No file: nothing.

    `typed` decodes lines to what it makes of records; a list with one that it refuses is of dicts, as without it.
    """
    read = Lines()
    try:
        yield from part(path, read, typed)
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(cannot_be_read(path, error))
    if problem := read.problem(path.name):
        problems.append(problem)


def part(path: Path, read: Lines, typed: Typed | None = None, start: int = 0, end: int | None = None) -> Iterator[list[Any]]:
    """Yield the records of the bytes from `start` to `end`, both at a line's begin, or to the file's end. Raise OSError."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        for lines, count in _whole(file, None if end is None else end - start):
            yield _typed(lines, count, typed) or _batch(str(lines, "utf-8", errors="replace").split("\n")[:count], read.count + 1, read.bad)
            read.count += count


def cannot_be_read(path: Path, error: OSError) -> str:
    return f"{path.name} cannot be read ({error.strerror})."


def _whole(file: FileIO, left: int | None) -> Iterator[tuple[memoryview, int]]:
    """Yield whole lines and how many: about CHUNK_BYTES of one buffer, which the next are read into. The file's last may lack its end.

    `left`: bytes to read; None: to the end.
    """
    buffer, held = bytearray(CHUNK_BYTES), 0
    while got := file.readinto(memoryview(buffer)[held : len(buffer) if left is None else min(len(buffer), held + left)]):
        left = None if left is None else left - got
        end = buffer.rfind(b"\n", held, held + got) + 1
        held += got
        if end:
            lines = memoryview(buffer)[:end]
            yield lines, int(np.count_nonzero(np.frombuffer(lines, np.uint8) == ord("\n")))  # bytes.count takes four times as long
            buffer[: held - end] = buffer[end:held]
            held -= end
        elif held == len(buffer):  # one long line
            buffer = buffer + bytes(held)
    if held:
        yield memoryview(buffer)[:held], 1


def _typed(lines: memoryview, count: int, typed: Typed | None) -> list[Any] | None:
    """Return what `count` lines decode to; None when one doesn't, or isn't a record."""
    try:
        found = typed(lines) if typed else []
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: not UTF-8
        return None
    return found if len(found) == count else None


def _parse(text: str) -> Any:
    """Return what json.loads does, in a third of the time where msgspec can; it is stricter, e.g. with NaN, which Python writes."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return json.loads(text)


def _batch(lines: list[str], first: int, bad: list[int]) -> list[dict[str, Any]]:
    """Parse many lines in one call (a third faster than one by one); fall back to single lines to find the bad one."""
    try:
        found: list[dict[str, Any]] = _parse(f"[{','.join(lines)}]")
        if len(found) == len(lines) and all(type(item) is dict for item in found):
            return found
    except (ValueError, RecursionError):
        pass
    whole = []
    for number, line in enumerate(lines, first):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            item = None
        if isinstance(item, dict):
            whole.append(item)
        elif line.strip():
            bad.append(number)
    return whole
