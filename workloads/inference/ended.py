"""How many requests of a cell have ended: counted by an engine's own process, read by the sweep's, with no message between them.

    counter = Counter(); Popen([..., str(counter.fd)], pass_fds=(counter.fd,)); counter.count     # the sweep
    share(fd), then ended() when a request has ended                                              # the engine's process

Eight bytes of shared memory: to count is to store a number, once a request. Nobody is woken and nothing is written, so what is
measured doesn't know whether somebody looks.
"""

import mmap
import os
import sys
import tempfile

BYTES = 8
_count = memoryview(bytearray(BYTES)).cast("Q")


def share(fd: int) -> None:
    """Count from now on where the starter of this process can see it."""
    global _count
    _count = memoryview(mmap.mmap(fd, BYTES)).cast("Q")
    os.close(fd)


def ended(requests: int = 1) -> None:
    """Count requests that have ended, well or not."""
    _count[0] += requests


class Counter:
    """The reader's side, for one process at a time."""

    def __init__(self) -> None:
        self.fd = _memory()
        """For the process that counts; `close_fd` once it has been started."""
        os.ftruncate(self.fd, BYTES)
        self._memory = mmap.mmap(self.fd, BYTES)

    @property
    def count(self) -> int:
        return int.from_bytes(self._memory[:BYTES], sys.byteorder)

    def reset(self) -> None:
        """Begin at 0. The other process must not count meanwhile."""
        self._memory[:BYTES] = bytes(BYTES)

    def close_fd(self) -> None:
        os.close(self.fd)


def _memory() -> int:
    if sys.platform == "linux":
        return os.memfd_create("ncdemo-ended")
    fd, path = tempfile.mkstemp(prefix="ncdemo-ended-")
    os.unlink(path)
    return fd
