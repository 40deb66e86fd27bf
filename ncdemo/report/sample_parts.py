"""A samples.jsonl to tables; a long one by several processes at once, each a part of it after another.

for table in sample_tables(path, problems, reasons): ...
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from ncdemo.report.lines import Lines, cannot_be_read, part, records
from ncdemo.report.sample_rows import row_lines
from ncdemo.report.sample_tables import Reasons, Table, tables

PART_BYTES = 1 << 25
MOST_PROCESSES = 5
"""One process takes their tables in a fifth of the time that they need for them (a million samples with a GPU)."""


def sample_tables(path: Path, problems: list[str], reasons: Reasons) -> Iterator[Table]:
    """Yield all samples of a file; `problems` as of `records`. Raise BrokenProcessPool when a process was killed, e.g. for memory."""
    edges = _edges(path)
    processes = min(len(edges) - 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, MOST_PROCESSES)
    if processes < 2 or threading.active_count() > 1:  # what other threads hold at a fork, a child waits for
        yield from tables(records(path, problems, row_lines), reasons)
        return
    read = Lines()
    # The last part goes to the file's end, which a run that goes on moves.
    spans = list(pairwise([*edges[:-1], None]))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        try:
            for found, theirs, lines in pool.map(partial(_read, path), spans):
                numbers = np.array([reasons[key] for key in theirs], dtype=float)
                for table in found:
                    if "throttle_reasons" in table.gpus:
                        table.gpus["throttle_reasons"] = numbers[table.gpus["throttle_reasons"].astype(int)]
                    yield table
                read.add(lines)
        except OSError as error:
            problems.append(cannot_be_read(path, error))
        finally:
            pool.shutdown(cancel_futures=True)
    if problem := read.problem(path.name):
        problems.append(problem)


def _read(path: Path, span: tuple[int, int | None]) -> tuple[list[Table], list[tuple[str, ...] | None], Lines]:
    """Return a part's tables, the reasons that their numbers stand for, and its lines."""
    reasons, lines = Reasons(), Lines()
    return list(tables(part(path, lines, row_lines, *span), reasons)), list(reasons), lines


def _edges(path: Path) -> list[int]:
    """Return where parts of about PART_BYTES begin and end, each at a line's begin; of a file that can't be read, one edge."""
    try:
        with path.open("rb") as file:
            size, edges = path.stat().st_size, [0]
            while edges[-1] + PART_BYTES < size:
                file.seek(edges[-1] + PART_BYTES)
                file.readline()
                edges.append(file.tell())
            return edges if edges[-1] >= size else [*edges, size]
    except OSError:
        return [0]
