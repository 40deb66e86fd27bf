"""A large file in ranges that are fetched side by side, so that what is here of it is kept when the fetching is cut off.

    Ranges(blobs, "jobs/tune/model/model.safetensors", Path(".model.safetensors.part"), etag, size).fetch(print)

Beside the part lies a note: the blob's ETag, then offset and MD5 of each range that arrived. Whoever goes on reads the part again
and keeps the ranges that still are what they were; with another ETag nothing is kept. Each range is asked for under that ETag.
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ncdemo.operate.blobs import RANGE_BYTES, Blobs

PART, NOTE = ".part", ".ranges"
AT_ONCE = 4


class Ranges:
    """One version of one blob, on its way into one file."""

    def __init__(self, blobs: Blobs, blob: str, part: Path, etag: str, size: int) -> None:
        self._blobs, self._blob, self._part, self._etag, self._size = blobs, blob, part, etag, size
        self._lock = threading.Lock()

    def fetch(self, done: Callable[[int], None]) -> None:
        """Fetch what is missing. Raise ResourceModifiedError when the blob changes meanwhile; what is here is worth nothing then."""
        from azure.core.exceptions import ResourceModifiedError

        kept = self._kept()
        here = sum(kept.values())
        done(here)
        with self._part.open("r+b" if self._part.exists() else "w+b") as out, note_of(self._part).open("a", encoding="utf-8") as note:
            out.truncate(self._size)
            note.write("\n")  # after a line that may be torn

            def one(offset: int) -> None:
                nonlocal here
                data = self._blobs.range(self._blob, offset, min(RANGE_BYTES, self._size - offset), self._etag)
                os.pwrite(out.fileno(), data, offset)
                with self._lock:
                    note.write(_line({"at": offset, "md5": _md5(data)}))
                    note.flush()
                    here += len(data)
                    done(here)

            with ThreadPoolExecutor(AT_ONCE) as several:
                try:
                    list(several.map(one, [at for at in range(0, self._size, RANGE_BYTES) if at not in kept]))
                except BaseException as error:
                    several.shutdown(cancel_futures=True)
                    if isinstance(error, ResourceModifiedError):
                        self.forget(self._part)
                    raise
            os.fsync(out.fileno())

    def _kept(self) -> dict[int, int]:
        """Return offset -> length of the ranges that are here and still are what arrived; begin anew for another version."""
        kept: dict[int, int] = {}
        with suppress(OSError), note_of(self._part).open(encoding="utf-8") as note, self._part.open("rb") as part:
            if note.readline() == _line(self._head):
                for line in note:
                    with suppress(ValueError, KeyError, TypeError):  # one that was being written may be torn
                        one = json.loads(line)
                        at, length = int(one["at"]), min(RANGE_BYTES, self._size - int(one["at"]))
                        data = os.pread(part.fileno(), length, at)
                        if at % RANGE_BYTES == 0 and len(data) == length and _md5(data) == one["md5"]:
                            kept[at] = length
        if not kept:
            self.forget(self._part)
            note_of(self._part).write_text(_line(self._head), encoding="utf-8")
        return kept

    @property
    def _head(self) -> dict[str, object]:
        return {"etag": self._etag, "bytes": self._size}

    @staticmethod
    def forget(part: Path) -> None:
        """Remove a part and its note."""
        part.unlink(missing_ok=True)
        note_of(part).unlink(missing_ok=True)


def note_of(part: Path) -> Path:
    return part.with_name(part.name + NOTE)


def _line(data: dict[str, object]) -> str:
    return json.dumps(data) + "\n"


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
