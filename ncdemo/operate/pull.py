"""Fetch a run's copy: every file whole or not at all, checked, and nothing twice, however often the fetching is cut off.

    pulled = pull(blobs, "tune-3f2a9c01de", Path("runs"), weights=True, progress=print)

A file is fetched beside its place and moved there when its length and, where storage has one, its MD5 are right; then a line in
.pulled says so. A large one comes in ranges, and goes on where it was cut off (ranges.py). result.json comes last, so that a folder
that has it has everything that was there when it came.
"""

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncdemo.operate.blobs import RANGE_BYTES, Blobs, StoredFile, bare
from ncdemo.operate.ranges import PART, Ranges
from ncdemo.spec.base import SpecError
from ncdemo.spec.run_folder import RESULT_FILE, SPEC, WEIGHTS

NOTES = ".pulled"
TRIES = 5
"""A file that a running job writes again meanwhile, or that arrives torn, is fetched anew so often."""
FILES = 4
"""Files at once."""
BLOCK_BYTES = 1 << 20
WRONG = "the copy in storage isn't what its checksum says; start the job again, which copies it anew"
Progress = Callable[[int, int], None]
"""Gets bytes that are there, of bytes in all; the second may change."""


@dataclass(frozen=True)
class Pulled:
    folder: Path
    files: int
    """Fetched now."""
    bytes: int
    whole: int
    """Files that were there already."""
    has_result: bool


class _Count:
    """Bytes of several files that come at once."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._done: dict[str, int] = {}

    def set(self, name: str, done: int) -> None:
        self._done[name] = done
        self._progress(sum(list(self._done.values())), self._total)

    def within(self, folder: str) -> Callable[[StoredFile, int], None]:
        return lambda file, done: self.set(f"{folder}/{file.name}", done)


def pull(blobs: Blobs, run: str, target: Path, *, weights: bool, progress: Progress) -> Pulled:
    """Fetch a run into a folder of its name below the target, and its further nodes beside it."""
    folders = blobs.files(run)
    wanted = {name: [f for f in files if weights or f.name.split("/")[0] not in WEIGHTS] for name, files in folders.items()}
    count = _Count(progress, sum(file.bytes for files in wanted.values() for file in files))
    got: list[int] = []
    whole = 0
    for name in sorted(wanted, reverse=True):  # further nodes before the run itself
        with _notes(target / name) as notes:
            missing = []
            for file in wanted[name]:
                if notes.holds(file):
                    whole += 1
                    count.set(f"{name}/{file.name}", file.bytes)
                else:
                    missing.append(file)
            got += _fetch_all(blobs, notes, missing, count.within(name))
    has_result = any(file.name == RESULT_FILE for file in folders.get(run, []))
    return Pulled(target / run, len(got), sum(got), whole, has_result)


def _fetch_all(blobs: Blobs, notes: "_Notes", files: list[StoredFile], done: Callable[[StoredFile, int], None]) -> list[int]:
    """Fetch files, several at once, result.json after all others; return their sizes."""
    last = [file for file in files if file.name == RESULT_FILE]
    with ThreadPoolExecutor(FILES) as several:
        try:
            sizes = list(several.map(lambda file: _fetch(blobs, notes, file, done), [f for f in files if f not in last]))
        except BaseException:
            several.shutdown(cancel_futures=True)
            raise
    return sizes + [_fetch(blobs, notes, file, done) for file in last]


def _fetch(blobs: Blobs, notes: "_Notes", file: StoredFile, done: Callable[[StoredFile, int], None]) -> int:
    """Fetch one file; return its size."""
    from azure.core.exceptions import AzureError, ResourceModifiedError

    path = notes.folder / file.name
    part = path.with_name(f".{path.name}{PART}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(TRIES):
        with blobs.asked():
            try:
                found = _download(blobs, file, part, lambda current: done(file, current))
            except ResourceModifiedError:
                continue
            except AzureError as error:
                if "MD5 mismatch" not in str(error):
                    raise
                raise SpecError(f"{path}: {WRONG}") from None
        md5, size = file_md5(part), part.stat().st_size
        if size == found.size and found.md5 in (None, md5):
            os.replace(part, path)
            Ranges.forget(part)
            notes.add(file.name, found.etag, size, md5)
            return size
        if size == found.size and found.md5 is not None:
            # Each range was what Azure sent; so it isn't what Azure was given.
            Ranges.forget(part)
            raise SpecError(f"{path}: {WRONG}")
    raise SpecError(f"{path}: changed, or arrived torn, {TRIES} times; pull again, when the job writes less if it still runs")


@dataclass(frozen=True)
class _Version:
    """What Azure said of what came."""

    size: int
    etag: str
    md5: bytes | None


def _download(blobs: Blobs, file: StoredFile, part: Path, done: Callable[[int], None]) -> _Version:
    """Fetch one version of a file, each range of it checked on its way. Raise ResourceModifiedError when it changes meanwhile."""
    if file.bytes > RANGE_BYTES:
        state = blobs.state(file.blob)
        Ranges(blobs, file.blob, part, state.etag, state.size).fetch(done)
    else:
        with part.open("wb") as out:
            found = blobs.download(file.blob, validate_content=True, progress_hook=lambda current, _total: done(current))
            found.readinto(out)
            out.flush()
            os.fsync(out.fileno())
        state = found.properties
    told = state.content_settings.content_md5
    return _Version(state.size, bare(state.etag), None if told is None else bytes(told))


class _Notes:
    """Which files of a folder are whole: a line for each, added when it is."""

    def __init__(self, folder: Path, file: Any) -> None:
        self.folder, self._file = folder, file
        self._known: dict[str, dict[str, Any]] = {}
        file.seek(0)
        for line in file.read().splitlines():
            with suppress(ValueError, KeyError, TypeError):  # the last line may be torn
                one = json.loads(line)
                self._known[one["name"]] = one
        file.write("\n")

    def holds(self, file: StoredFile) -> bool:
        """Say whether a file is here as it is there. One that was touched since is read again."""
        noted = self._known.get(file.name)
        path = self.folder / file.name
        if not noted or noted["etag"] != file.etag or not path.is_file():
            return False
        state = path.stat()
        if state.st_size != file.bytes:
            return False
        return bool(state.st_mtime_ns == noted["mtime_ns"] or base64.b64encode(file_md5(path)).decode() == noted["md5"])

    def add(self, name: str, etag: str, size: int, md5: bytes) -> None:
        stamp = (self.folder / name).stat().st_mtime_ns
        line = {"name": name, "etag": etag, "bytes": size, "md5": base64.b64encode(md5).decode(), "mtime_ns": stamp}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


@contextmanager
def _notes(folder: Path) -> Iterator[_Notes]:
    """Open a folder's notes, for this process alone. Raise SpecError when the folder is a run of this machine."""
    if not (folder / NOTES).exists() and any((folder / name).exists() for name in (RESULT_FILE, SPEC)):
        raise SpecError(f"{folder}: is a run of this machine, not a copy that was pulled; give another folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NOTES).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SpecError(f"{folder}: is being pulled by another process; wait for it, or give another folder with -o") from None
        yield _Notes(folder, file)


def file_md5(path: Path) -> bytes:
    found = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return found.digest()
