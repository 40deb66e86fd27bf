"""Where checkpoints are: a folder of this machine, or one in blob storage. Only a folder with a manifest is a checkpoint.

The manifest names every file with its size and sha256 and is written last, in one piece; what a killed run leaves without one
is torn and never taken for whole.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from workloads.storage import Storage, short

LOG = logging.getLogger("ncdemo.train")
MANIFEST = "manifest.json"
TRIES = 6
"""For each request to storage, with 0.5, 1, 2, 4 and 8 s in between."""
AT_ONCE = 4
"""Files of a checkpoint under way to or from storage: most are small, and each costs a round trip."""
T = TypeVar("T")


def digest(path: Path) -> dict[str, Any]:
    """Return a file's size in bytes and its sha256."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    found = re.fullmatch(r"step-(\d{8,})", name)
    return int(found[1]) if found else None


def damaged(folder: Path, manifest: dict[str, Any]) -> str | None:
    """Return the first file that isn't as the manifest says, or None."""
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file() or digest(path) != wanted:
            return str(name)
    return None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there in one piece or not at all, also after a power cut."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


class LocalStore:
    """Checkpoints in a folder; a step's files are written into .step-N.part, which becomes step-N when it is whole."""

    def __init__(self, root: Path) -> None:
        self.root = self.shown = self.room = root

    def part(self, step: int) -> Path:
        """Return where ranks write the files of a step that isn't committed yet."""
        folder = self._part(step)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, step: int, names: list[str]) -> None:
        """Make this rank's files safe: here, from what the disk has only promised."""
        for name in names:
            with (self.part(step) / name).open("rb") as file:
                os.fsync(file.fileno())

    def read(self, step: int, name: str) -> bytes:
        """Return a small file of an uncommitted step."""
        return (self.part(step) / name).read_bytes()

    def commit(self, step: int, manifest: bytes) -> None:
        part, folder = self.part(step), self.root / folder_name(step)
        write_whole(part / MANIFEST, manifest)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one of the same step
        os.replace(part, folder)
        fd = os.open(self.root, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def discard(self, step: int) -> None:
        """Remove what there is of a step that could not be committed."""
        shutil.rmtree(self._part(step), ignore_errors=True)

    def steps(self) -> list[int]:
        """Return the committed steps, newest first."""
        found = [step_of(path.name) for path in self.root.glob("step-*") if (path / MANIFEST).is_file()]
        return sorted((s for s in found if s is not None), reverse=True)

    def manifest(self, step: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / folder_name(step) / MANIFEST).read_bytes())
        return found

    def fetch(self, step: int, manifest: dict[str, Any]) -> Path:
        """Return the folder that holds a step's files on this machine."""
        return self.root / folder_name(step)

    def remove(self, step: int) -> None:
        shutil.rmtree(self.root / folder_name(step), ignore_errors=True)

    def clear_parts(self) -> None:
        """Remove what killed attempts left unfinished."""
        for part in self.root.glob(".step-*.part"):
            shutil.rmtree(part, ignore_errors=True)

    def _part(self, step: int) -> Path:
        return self.root / f".{folder_name(step)}.part"


class BlobStore:
    """Checkpoints in storage; files pass through a folder of this machine, which is emptied behind them."""

    def __init__(self, storage: Storage, run: str, staging: Path) -> None:
        self._storage, self._run, self._staging = storage, run, staging
        self.shown, self.room = f"{storage.shown}/{run}", staging

    def part(self, step: int) -> Path:
        folder = self._part(step)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, step: int, names: list[str]) -> None:
        """Upload this rank's files and forget the local ones."""
        folder = self.part(step)

        def upload(name: str) -> None:
            again(lambda: self._storage.put(folder / name, self._name(step, name)))
            (folder / name).unlink()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(upload, names))

    def read(self, step: int, name: str) -> bytes:
        return again(lambda: self._storage.read(self._name(step, name)))

    def commit(self, step: int, manifest: bytes) -> None:
        path = self.part(step) / MANIFEST
        write_whole(path, manifest)
        again(lambda: self._storage.put(path, self._name(step, MANIFEST)))
        shutil.rmtree(path.parent, ignore_errors=True)

    def discard(self, step: int) -> None:
        """Remove what there is of a step that could not be committed."""
        shutil.rmtree(self._part(step), ignore_errors=True)

    def steps(self) -> list[int]:
        names = again(lambda: self._storage.names(self._run))
        found = [step_of(name.split("/")[0]) for name in names if name.endswith(f"/{MANIFEST}")]
        return sorted((s for s in found if s is not None), reverse=True)

    def manifest(self, step: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(again(lambda: self._storage.read(self._name(step, MANIFEST))))
        return found

    def fetch(self, step: int, manifest: dict[str, Any]) -> Path:
        folder = self._staging / f"fetched-{folder_name(step)}"
        folder.mkdir(parents=True, exist_ok=True)

        def download(name: str) -> None:
            path = folder / name
            if not path.is_file() or digest(path) != manifest["files"][name]:
                again(lambda: self._storage.get(self._name(step, name), path))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(download, manifest["files"]))
        return folder

    def remove(self, step: int) -> None:
        # The manifest first: without it the rest is no checkpoint, whatever happens now.
        again(lambda: self._storage.remove(self._name(step, MANIFEST)))
        again(lambda: self._storage.remove(f"{self._run}/{folder_name(step)}"))

    def clear_parts(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)

    def _part(self, step: int) -> Path:
        return self._staging / f".{folder_name(step)}.part"

    def _name(self, step: int, name: str) -> str:
        return f"{self._run}/{folder_name(step)}/{name}"


Store = LocalStore | BlobStore


def again(ask: Callable[[], T]) -> T:
    """Return what storage answers, asking again after a failure. Raise its last error."""
    for n in range(TRIES):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever a storage library raises
            if n == TRIES - 1:
                raise
            LOG.info("storage failed (%s); asking again", short(error))
            time.sleep(0.5 * 2**n)
    raise AssertionError
