"""JSON Lines of a run that may have been killed: every whole record, and a sentence for what is not whole.

for batch in records(run / "steps.jsonl", problems): ...
"""

import json
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

CHUNK_BYTES = 1 << 17
"""Parsed in one call: enough to save the calls, few enough to stay in the cache with what they become (1 MiB takes a third longer)."""
Typed = Callable[[memoryview], list[Any]]


def records(path: Path, problems: list[str], typed: Typed | None = None) -> Iterator[list[Any]]:
    """Yield lists of records; append one sentence to `problems` for lines that could not be read. No file: nothing.

    `typed` decodes lines to what it makes of records; a list with one that it refuses is of dicts, as without it.
    """
    bad: list[int] = []
    first, last = 1, 0
    try:
        with path.open("rb", buffering=0) as file:
            for lines, count in _whole(file):
                yield _typed(lines, count, typed) or _batch(str(lines, "utf-8", errors="replace").split("\n")[:count], first, bad)
                first += count
                last = first - 1
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror}).")
    if bad == [last]:
        problems.append(f"{path.name}: the last line (line {last}) is torn: the run was cut off while it wrote; the line is left out.")
    elif bad:
        problems.append(f"{path.name}: {len(bad)} lines are not JSON records (the first is line {bad[0]}); they are left out.")


def _whole(file: FileIO) -> Iterator[tuple[memoryview, int]]:
    """Yield whole lines and how many: about CHUNK_BYTES of one buffer, which the next are read into. The file's last may lack its end."""
    buffer, held = bytearray(CHUNK_BYTES), 0
    while got := file.readinto(memoryview(buffer)[held:]):
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
