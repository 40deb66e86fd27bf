"""Checkpoints: copied to memory, written by a thread, committed when every rank's part is safe, pruned.

checkpoints = Checkpoints(store, strategy.rank, keep=2)
checkpoints.begin(step, write)          # each rank; `write` fills its part, later
votes = checkpoints.votes()             # travel with the next step's loss
checkpoints.count(votes_of_all_ranks)   # rank 0 commits when all have written
"""

import json
import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ncdemo.spec.base import SpecError
from workloads.room import lacks_room
from workloads.storage import short
from workloads.training.core.part import Part, stand_back
from workloads.training.core.store import MANIFEST, Store, damaged, digest, write_whole

LOG = logging.getLogger("ncdemo.train")


class Checkpoints:
    """This rank's side of a run's checkpoints. At most one is under way."""

    def __init__(self, store: Store, rank: int, world_size: int, keep: int) -> None:
        self.store = store
        self._rank, self._world_size, self._keep = rank, world_size, keep
        self._beside = ThreadPoolExecutor(1, "checkpoint", initializer=stand_back)
        self._now = ThreadPoolExecutor(1, "checkpoint-now")
        self._step: int | None = None
        self._written: Future[None] | None = None
        self._committed: Future[None] | None = None
        self._without_room: list[int] = []

    def begin(self, step: int, write: Callable[[Part], None], *, beside: bool = True) -> None:
        """Start writing this rank's part of a step's checkpoint. None may be under way. `beside`: training goes on meanwhile."""
        assert not self.under_way
        self._step, self._committed = step, None
        self._written = (self._beside if beside else self._now).submit(self._write, step, write)

    @property
    def under_way(self) -> bool:
        return self._step is not None

    def votes(self) -> list[int]:
        """Return [written, failed] of what is under way on this rank, each 0 or 1; the sum over ranks goes to `count`."""
        if self._written is None or not self._written.done():
            return [0, 0]
        failed = self._written.exception() is not None
        return [int(not failed), int(failed)]

    def count(self, written: int, failed: int) -> None:
        """Go on with what is under way, now that all ranks are known to stand there."""
        if self._step is None or written + failed < self._world_size:
            return
        step = self._step
        if failed:
            error = self._written.exception() if self._written else None
            self._failed(step, "written", error if isinstance(error, Exception) else None)
            # All ranks have voted, so none writes there any more; what one wrote takes room that the next checkpoint needs.
            self.store.discard(step)
        elif self._rank == 0:
            self._committed = self._now.submit(self._commit, step)
        self._step = self._written = None

    def finish(self, total: Callable[[list[int]], list[int]]) -> bool:
        """Wait for what is under way; `total` sums over ranks, and all of them must call this. Say whether all went well."""
        failed = 0
        if self._written:
            self._written.exception()  # waits
            written, failed = total(self.votes())
            self.count(written, failed)
        if self._committed and self._committed.exception():
            failed = 1
        return total([failed]) == [0]

    def _failed(self, step: int, what: str, error: Exception | None) -> None:
        """Say why a checkpoint isn't there. A disk that stays full is said once: it fails again at every checkpoint."""
        full = error is not None and lacks_room(error)
        remedy = f" Free some space in {self.store.room} or set checkpoint.keep lower: the next checkpoint tries again" if full else ""
        level = logging.INFO if full and self._without_room else logging.WARNING
        why = short(error) if error else "another rank says why"
        LOG.log(level, "the checkpoint of step %d could not be %s (%s); the one before stays.%s", step, what, why, remedy)
        if full:
            self._without_room.append(step)

    def _write(self, step: int, write: Callable[[Part], None]) -> None:
        folder = self.store.part(step)
        own = folder / f".rank-{self._rank:05d}"
        own.mkdir(exist_ok=True)
        with Part(own) as part:
            write(part)
        files = {}
        for path in sorted(p for p in own.rglob("*") if p.is_file()):
            inside = path.relative_to(own).as_posix()
            name = inside.replace("/", "__")
            path.rename(folder / name)
            files[name] = part.digests.get(inside) or digest(folder / name)  # what a library wrote by itself
        shutil.rmtree(own)
        note = f"rank-{self._rank:05d}.json"
        self.store.publish(step, list(files))
        write_whole(folder / note, json.dumps(files).encode())
        self.store.publish(step, [note])

    def _commit(self, step: int) -> None:
        """Make it whole: the manifest names the files of all ranks. Then let the oldest go."""
        try:
            start = time.perf_counter()
            files: dict[str, Any] = {}
            for rank in range(self._world_size):
                files |= json.loads(self.store.read(step, f"rank-{rank:05d}.json"))
            self.store.commit(step, json.dumps({"step": step, "world_size": self._world_size, "files": files}, indent=1).encode())
            LOG.info("checkpoint of step %d is whole (committed in %.2f s)", step, time.perf_counter() - start)
        except Exception as error:  # whatever a disk or a storage library raises
            self._failed(step, "committed", error)
            self.store.discard(step)
            raise
        if self._without_room:
            LOG.warning("checkpoints have room again at step %d; without one: steps %s", step, ", ".join(map(str, self._without_room)))
            self._without_room = []
        for old in self.store.steps()[self._keep :]:
            try:
                self.store.remove(old)
            except Exception as error:  # it is tried again with the next one
                LOG.warning("the checkpoint of step %d could not be removed (%s)", old, short(error))


def newest(store: Store) -> tuple[int, Path] | None:
    """Return step and folder of the newest whole checkpoint, on this machine; None without one. Damaged ones are passed over."""
    for step in store.steps():
        try:
            manifest = store.manifest(step)
            folder = store.fetch(step, manifest)
            bad = damaged(folder, manifest)
        except (FileNotFoundError, ValueError, KeyError) as error:
            bad = f"{MANIFEST}: {short(error)}"
        if bad is None:
            return step, folder
        LOG.warning("the checkpoint of step %d in %s is damaged (%s) and passed over", step, store.shown, bad)
    return None


def wanted(found: tuple[int, Path] | None, resume: str, store: Store) -> tuple[int, Path] | None:
    """Return where to go on from. Raise SpecError when there must be something and isn't."""
    if found is None and resume == "must":
        raise SpecError(f"checkpoint.resume = 'must': no whole checkpoint in {store.shown}; name the right run, or set it to auto")
    return found
