"""The append-only ledger of finished cells: after kill -9 nothing is measured twice and nothing is counted twice.

    ledger = Ledger(run.folder, spec.spec_hash())
    if key not in ledger.done: ledger.commit(key, cell, records, run.now())

A cell's requests are on the disk before its line in cells.jsonl is; what follows the last whole line belongs to no finished
cell and is cut off when the ledger is opened again.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ncdemo.spec.ledger import CELLS_FILE, REQUESTS_FILE, LedgerEntry, LedgerHead, read_ledger, resumable
from ncdemo.spec.result_bench import Cell, RequestRecord

RESERVE_FILE = ".reserve"
RESERVE_BYTES = 1 << 20
"""Given back on a full disk, so that the failure itself can be written."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ledger:
    """What is finished in a run directory. One process writes it."""

    def __init__(self, folder: Path, spec_hash: str) -> None:
        self._cells, self._requests, self._reserve = folder / CELLS_FILE, folder / REQUESTS_FILE, folder / RESERVE_FILE
        lines = resumable(folder, spec_hash)
        self.entries = lines.entries
        self.done: dict[str, Cell] = {entry.key: entry.cell for entry in lines.entries}
        _cut(self._requests, lines.entries[-1].requests_bytes if lines.entries else 0)
        _cut(self._cells, lines.whole_bytes)
        if lines.spec_hash is None:
            _append(self._cells, LedgerHead(spec_hash=spec_hash).model_dump_json() + "\n")
            _sync_folder(folder)
        self._keep_reserve()
        self._begun = time.perf_counter()

    def begin(self) -> None:
        """Start the clock of a cell's wall_s."""
        self._begun = time.perf_counter()

    @property
    def cell_s(self) -> float:
        """Seconds since then."""
        return time.perf_counter() - self._begun

    def commit(self, key: str, cell: Cell, records: Sequence[RequestRecord], now_s: float) -> Cell:
        """Write a finished cell and return it. On a full disk its requests are dropped and it is a recorded failure."""
        before = self._size()
        try:
            _append(self._requests, "".join(record.model_dump_json() + "\n" for record in records))
            self._enter(key, cell, self._size(), now_s)
            return cell
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            _cut(self._requests, before)
            _cut(self._cells, read_ledger(self._cells).whole_bytes)
            self._reserve.unlink(missing_ok=True)
            cell = disk_full(cell)
            self._enter(key, cell, before, now_s)
            self._keep_reserve()
            return cell

    def requests(self) -> Iterator[RequestRecord]:
        """Yield the requests of finished cells."""
        if self._requests.exists():
            with self._requests.open(encoding="utf-8") as lines:
                yield from map(RequestRecord.model_validate_json, lines)

    def close(self) -> None:
        self._reserve.unlink(missing_ok=True)

    def _enter(self, key: str, cell: Cell, requests_bytes: int, now_s: float) -> None:
        entry = LedgerEntry(key=key, cell=cell, requests_bytes=requests_bytes, end_s=now_s, wall_s=self.cell_s)
        _append(self._cells, entry.model_dump_json() + "\n")
        self.entries.append(entry)
        self.done[key] = cell

    def _size(self) -> int:
        return self._requests.stat().st_size if self._requests.exists() else 0

    def _keep_reserve(self) -> None:
        with suppress(OSError):  # without a reserve a full disk ends the run instead of the cell
            self._reserve.write_bytes(bytes(RESERVE_BYTES))


def disk_full(cell: Cell) -> Cell:
    """Return the cell as a failure: its numbers have no records to prove them."""
    return Cell(
        engine=cell.engine, model=cell.model, variant=cell.variant, setting=cell.setting, lengths=cell.lengths,
        tensor_parallel_size=cell.tensor_parallel_size,
        concurrency=cell.concurrency, rate_rps=cell.rate_rps,
        searched=cell.searched, repeat=cell.repeat, requests=cell.requests, failed=cell.requests, failure="disk_full",
        error="no space left for its requests; free some, or set telemetry and prompts.count lower",
    )  # fmt: skip


def _append(path: Path, text: str) -> None:
    """Add text; it is on the disk when this returns."""
    with path.open("ab", buffering=0) as file:
        data = memoryview(text.encode())
        while data:  # a raw write may be short, and is on a disk that is nearly full
            data = data[file.write(data) :]
        os.fsync(file.fileno())


def _cut(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make new files of a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
