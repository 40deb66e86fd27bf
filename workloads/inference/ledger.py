"""The append-only ledger of finished cells: after kill -9 nothing is measured twice and nothing is counted twice.

    ledger = Ledger(run.folder, spec.spec_hash())
    if key not in ledger.done: ledger.commit(key, cell, records, run.now())

A cell's requests are on the disk before its line in cells.jsonl is; what follows the last whole line belongs to no finished
cell and is cut off when the ledger is opened again. A full disk is waited for; when it stays full, the cell is on record as a
failure, the sweep ends, and the same command measures that cell again.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ncdemo.spec.ledger import CELLS_FILE, DISK_FULL, REQUESTS_FILE, LedgerEntry, LedgerHead, resumable
from ncdemo.spec.result_bench import Cell, RequestRecord
from workloads.room import NoRoom, Reserve, lacks_room, with_room


class Ledger:
    """What is finished in a run directory. One process writes it."""

    def __init__(self, folder: Path, spec_hash: str) -> None:
        self._cells, self._requests, self._reserve = folder / CELLS_FILE, folder / REQUESTS_FILE, Reserve(folder)
        lines = resumable(folder, spec_hash)
        self.resumed = lines.spec_hash is not None
        self.entries = lines.entries
        self.done: dict[str, Cell] = {entry.key: entry.cell for entry in lines.entries}
        _cut(self._requests, lines.entries[-1].requests_bytes if lines.entries else 0)
        _cut(self._cells, lines.whole_bytes)
        if lines.spec_hash is None:
            _append(self._cells, (LedgerHead(spec_hash=spec_hash).model_dump_json() + "\n").encode())
            _sync_folder(folder)
        self._reserve.keep()
        self._begun = time.perf_counter()

    def begin(self) -> None:
        """Start the clock of a cell's wall_s."""
        self._begun = time.perf_counter()

    @property
    def cell_s(self) -> float:
        """Seconds since then."""
        return time.perf_counter() - self._begun

    def commit(self, key: str, cell: Cell, records: Sequence[RequestRecord], now_s: float) -> Cell:
        """Write a finished cell and return it, waiting for room on a full disk.

        Raise NoRoom where it stays full: the cell is then a recorded failure, or kept where it fits into the reserve.
        """
        wall_s, before, cells_before = self.cell_s, self._size(), self._cells.stat().st_size
        requests = "".join(record.model_dump_json() + "\n" for record in records).encode()

        def enter(data: bytes, what: Cell) -> None:
            size = before + len(data)
            entry = LedgerEntry(key=key, cell=what, requests_bytes=size, end_s=now_s, wall_s=wall_s)
            try:
                _append(self._requests, data)
                _append(self._cells, (entry.model_dump_json() + "\n").encode())
            except OSError:
                _cut(self._cells, cells_before)
                _cut(self._requests, before)
                raise
            self.entries.append(entry)
            self.done[key] = what

        try:
            with_room(lambda: enter(requests, cell), f"{self._requests}: {key}")
            return cell
        except OSError as error:
            if not lacks_room(error) and error.errno != errno.EFBIG:  # a limit on files, which no waiting lifts
                raise
            self._reserve.free()
            for data, what in ((requests, cell), (b"", disk_full(cell))):
                with suppress(OSError):  # the requests, where the reserve is enough for them; else the failure alone
                    enter(data, what)
                    break
            lost = "kept" if key in self.done and self.done[key].failure != DISK_FULL else "measured again"
            raise NoRoom(
                f"{self._requests}: no room for the {len(records)} requests of {key} ({error.strerror}); free some space and "
                f"start the same command again (ncdemo bench run --resume): what is finished is kept, and this cell is {lost}"
            ) from None

    def requests(self) -> Iterator[RequestRecord]:
        """Yield the requests of finished cells."""
        if self._requests.exists():
            with self._requests.open(encoding="utf-8") as lines:
                yield from map(RequestRecord.model_validate_json, lines)

    def close(self) -> None:
        self._reserve.free()

    def _size(self) -> int:
        return self._requests.stat().st_size if self._requests.exists() else 0


def disk_full(cell: Cell) -> Cell:
    """Return the cell as a failure: its numbers have no records to prove them."""
    return Cell(
        engine=cell.engine, model=cell.model, variant=cell.variant, setting=cell.setting, lengths=cell.lengths,
        tensor_parallel_size=cell.tensor_parallel_size,
        concurrency=cell.concurrency, rate_rps=cell.rate_rps,
        searched=cell.searched, repeat=cell.repeat, requests=cell.requests, failed=cell.requests, failure=DISK_FULL,
        error="no space left for its requests; free some and start the same command again: it is measured again",
    )  # fmt: skip


def _append(path: Path, data: bytes) -> None:
    """Add data; it is on the disk when this returns."""
    with path.open("ab", buffering=0) as file:
        rest = memoryview(data)
        while rest:  # a raw write may be short, and is on a disk that is nearly full
            rest = rest[file.write(rest) :]
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
