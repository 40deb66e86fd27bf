"""Copy a run directory to storage while it grows, and whole at its end: a node may vanish, its evidence must not.

    mirror = Mirror(folder, Storage("az://metrics/jobs"))   # to az://metrics/jobs/<name of the folder>
    mirror.start()
    whole = mirror.finish(stop)

A thread does it all, so that storage that fails or hangs never holds up the work.
"""

import logging
import os
import threading
import time
from pathlib import Path

from ncdemo.spec.job import NCDEMO_RESULTS_URI, STOP_S
from ncdemo.spec.run_folder import RESULT_FILE, WEIGHTS, is_copied
from workloads.child import Stop
from workloads.storage import Storage, short

LOG = logging.getLogger("ncdemo.job")
EVERY_S = 30.0
LONGEST_WAIT_S = 300.0
FINAL_TRIES = 6
"""Passes that may fail in a row at the end, with 1, 2, 4, 8 and 16 s between them."""
FAILURES = 3
"""Files that may fail in one pass before the next."""


class Mirror:
    """One run directory and its copy, from which nothing is ever removed. result.json of a finished run comes last in it."""

    def __init__(self, folder: Path, storage: Storage) -> None:
        self._folder, self._storage = folder, storage
        self._target = f"{storage.shown}/{folder.name}"
        self._sent: dict[Path, tuple[int, int]] = {}
        self._ending = threading.Event()
        self._stopped = False
        self._whole = False
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, stop: Stop) -> bool:
        """Copy what is left and say whether all of it is there. After a signal: evidence first, weights while time is left."""
        self._stopped = stop.since is not None
        LOG.info("copying results to %s", self._target)
        self._ending.set()
        while self._thread.is_alive() and not stop.at_once and not (stop.since and time.monotonic() > stop.since + STOP_S):
            self._thread.join(0.1)
        if not self._whole:
            LOG.error(
                "%s: not all results are there; what is missing stays in %s. Check %s and that this identity may write there "
                "(Storage Blob Data Contributor), then start the same job again: it copies them",
                *(self._target, self._folder, NCDEMO_RESULTS_URI),
            )
        return self._whole

    def _work(self) -> None:
        wait_s = EVERY_S
        while not self._ending.wait(wait_s):
            evidence = [path for path in self._files() if self._name(path) != RESULT_FILE and not self._weights(path)]
            wait_s = min(2 * wait_s, LONGEST_WAIT_S) if self._copy(evidence) else EVERY_S
        tries = 0
        while not self._whole and tries < FINAL_TRIES:
            time.sleep(2 ** (tries - 1) if tries else 0)
            known = len(self._sent)  # not what was sent again: the log grows with every failure
            self._whole = not self._copy(self._files())
            tries = 0 if len(self._sent) > known else tries + 1

    def _copy(self, files: list[Path]) -> int:
        """Copy in order what changed since it was sent; return how many failed."""
        failed = 0
        for path in files:
            try:
                state = path.stat()
                stamp = (state.st_size, state.st_mtime_ns)
                if self._sent.get(path) == stamp:
                    continue
                if failed == FAILURES or (failed and self._name(path) == RESULT_FILE and not self._stopped):
                    break
                # Weights don't change any more; and reading them once more takes time that a node which goes away hasn't got.
                checksum = self._weights(path) and not self._stopped
                self._storage.put(path, f"{self._folder.name}/{self._name(path)}", checksum=checksum)
                self._sent[path] = stamp
            except Exception as error:  # whatever storage raises must not end the work
                if path.exists():  # else a checkpoint that made room for a newer one
                    failed += 1
                    LOG.warning("%s/%s: not copied, to be tried again (%s)", self._target, self._name(path), short(error))
        return failed

    def _files(self) -> list[Path]:
        """Return what is to be copied, in order: the small files first; result.json last, or when stopped before the weights."""
        found = []
        for folder, folders, names in os.walk(self._folder):
            folders[:] = filter(is_copied, folders)
            found += [Path(folder, name) for name in filter(is_copied, names)]
        rank = {path: (self._name(path) == RESULT_FILE, self._weights(path)) for path in found}
        return sorted(found, key=lambda path: (rank[path][:: -1 if self._stopped else 1], _size(path), path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _weights(self, path: Path) -> bool:
        return self._name(path).split("/")[0] in WEIGHTS


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone since it was listed
        return 0
