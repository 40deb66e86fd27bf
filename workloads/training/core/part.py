"""One rank's files of a checkpoint: hashed while they are written, past the page cache, at little cost to the training beside it.

with Part(folder) as part:
    part.save("optimizer.pt", optimizer.state_dict())
part.digests        # {"optimizer.pt": {"bytes": ..., "sha256": ...}}

Reading 1.6 GB back to hash it, and copying it through the page cache, cost more CPU than all the rest of a checkpoint.
"""

import errno
import hashlib
import mmap
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy
import torch

CHUNK = 8 << 20
"""Bytes hashed and written at once."""
PAGE = 4096
"""What O_DIRECT wants offsets and lengths to be multiples of, in bytes."""
NICE = 10
"""Of a thread that writes beside training: a tenth of a core that training wants, all of one that it leaves."""
DIRECT = getattr(os, "O_DIRECT", 0)


class Part:
    """A folder that one rank fills. `digests` has size and sha256 of every file that `save` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: dict[str, dict[str, Any]] = {}
        # Two threads: one hashes a chunk while the other writes it. They have the priority of the thread that starts them.
        self._hashing, self._writing = (ThreadPoolExecutor(1, f"checkpoint-{name}") for name in ("hash", "disk"))
        self._chunks = [mmap.mmap(-1, CHUNK) for _ in range(2)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hashing.shutdown()
        self._writing.shutdown()

    def save(self, name: str, tree: Any) -> None:
        """Write tensors as torch.save does, for torch.load with weights_only."""
        torch.serialization.set_crc32_options(False)  # the sha256 says more
        file = _File(self.folder / name, self._chunks, self._hashing, self._writing)
        try:
            torch.save(tree, file)
            self.digests[name] = file.end()
        finally:
            file.close()


class _File:
    """What torch.save writes to."""

    def __init__(self, path: Path, chunks: list[mmap.mmap], hashing: ThreadPoolExecutor, writing: ThreadPoolExecutor) -> None:
        self._chunks, self._hashing, self._writing = chunks, hashing, writing
        self._busy: list[list[Future[Any]]] = [[] for _ in chunks]
        self._now = self._filled = self._size = 0
        self._sha256 = hashlib.sha256()
        self._error: BaseException | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._direct = bool(DIRECT)
        try:
            self._fd = os.open(path, flags | DIRECT, 0o644)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct, self._fd = False, os.open(path, flags, 0o644)  # a file system without it

    def write(self, data: Any) -> int:
        if self._error:
            return len(data)
        source, done = numpy.asarray(memoryview(data).cast("B")), 0
        while done < len(source):
            n = min(CHUNK - self._filled, len(source) - done)
            target = numpy.frombuffer(self._chunks[self._now], numpy.uint8, n, self._filled)
            numpy.copyto(target, source[done : done + n])  # without the interpreter's lock
            self._filled, done = self._filled + n, done + n
            if self._filled == CHUNK:
                self._pass_on()
        return done

    def flush(self) -> None:
        """Do nothing: torch.save asks for it, and `end` does it."""

    def end(self) -> dict[str, Any]:
        """Write what is left; return the file's size in bytes and its sha256. Raise the first error: torch.save would hide it."""
        self._pass_on()
        self._wait()
        if self._error:
            raise self._error
        return {"bytes": self._size, "sha256": self._sha256.hexdigest()}

    def close(self) -> None:
        self._wait()
        os.close(self._fd)

    def _pass_on(self) -> None:
        """Hand the chunk to both threads, and go on with the next one that is free."""
        view = memoryview(self._chunks[self._now])[: self._filled]
        self._busy[self._now] = [self._hashing.submit(self._sha256.update, view), self._writing.submit(self._put, view, self._size)]
        self._size += self._filled
        self._now, self._filled = (self._now + 1) % len(self._chunks), 0
        self._wait(self._now)

    def _wait(self, *which: int) -> None:
        for i in which or range(len(self._busy)):
            for future in self._busy[i]:
                self._error = self._error or future.exception()
            self._busy[i] = []

    def _put(self, view: memoryview, offset: int) -> None:
        whole = len(view) // PAGE * PAGE if self._direct else len(view)
        try:
            _put_all(self._fd, view[:whole], offset)
        except OSError as error:
            if not self._direct or error.errno != errno.EINVAL:
                raise
            whole = 0  # it wants larger pages
        if whole < len(view):
            self._buffered()
            _put_all(self._fd, view[whole:], offset + whole)

    def _buffered(self) -> None:
        """Go on through the page cache: the end of a file is no whole page."""
        import fcntl

        if self._direct:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~DIRECT)
            self._direct = False


def _put_all(fd: int, view: memoryview, offset: int) -> None:
    while view:
        n = os.pwrite(fd, view, offset)
        view, offset = view[n:], offset + n


def stand_back() -> None:
    """Let this thread, and those that it starts, have what CPU time training leaves. Linux alone has priorities of threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
