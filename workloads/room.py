"""Room on the disk: what its lack looks like, a reserve for the last words, and a wait for more that has an end.

    with_room(lambda: save(model), "the model")     # tries again until there is room, or raises the last error
    reserve = Reserve(folder); reserve.keep()
    reserve.free()                                  # a full disk then takes 1 MiB more

The sampler imports this: nothing heavy here.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

LOG = logging.getLogger("ncdemo.disk")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""No space, a quota; and a network mount that is away for a while."""
LIBRARIES = re.compile(rf"\(os error ({'|'.join(map(str, FULL))})\)")
"""How Rust says it: safetensors raises an error of its own."""
WAIT_S = 300.0
"""For somebody to make room, where work can't go on without it: a node's time for it costs less than doing the work again."""
AGAIN_S, SELDOM_S = 1.0, 15.0
"""Between two tries: at first, and later."""
RESERVE_FILE = ".reserve"
RESERVE_BYTES = 1 << 20
T = TypeVar("T")


class NoRoom(Exception):
    """The disk stayed full. The message says what is lost and what to do; no traceback could add to it."""


class Reserve:
    """A file that is given back on a full disk, so that how a run ended can still be written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESERVE_FILE

    def keep(self) -> None:
        """Make it, unless it is there; of a disk that is nearly full, of what is left."""
        with suppress(OSError):
            if not self._path.exists():
                self._path.write_bytes(os.urandom(RESERVE_BYTES))  # zeros would take no room where a file system compresses

    def free(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def lacks_room(error: BaseException) -> bool:
    """Say whether an error is one of a full disk, by whomever it was raised."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return LIBRARIES.search(str(error)) is not None


def may_pass(error: OSError) -> bool:
    """Say whether a disk may later take what it refuses now: it is full, or read-only, as one with an error is mounted until it is mended."""
    return lacks_room(error) or error.errno == errno.EROFS


def remedy(error: OSError) -> str:
    return "make it writable again" if error.errno == errno.EROFS else "free some space"


def with_room(do: Callable[[], T], what: str) -> T:
    """Return what `do` returns; while the disk is full try again, up to WAIT_S. `do` leaves nothing behind when it fails."""
    began, wait_s = time.monotonic(), AGAIN_S
    waiting = False
    while True:
        try:
            done = do()
        except Exception as error:
            if not lacks_room(error) or time.monotonic() > began + WAIT_S:
                raise
            if not waiting:
                LOG.warning("%s: %s; free some space: it is tried again for %.0f s", what, error, WAIT_S)
            waiting = True
        else:
            if waiting:
                LOG.warning("%s: written after %.1f s without room", what, time.monotonic() - began)
            return done
        time.sleep(min(wait_s, max(0.0, began + WAIT_S - time.monotonic()) + 0.01))
        wait_s = min(2 * wait_s, SELDOM_S)
