"""A run's figures on their way to Azure Monitor: written down first, sent after, so that nothing that happens to the sender loses them.

Azure Monitor keeps points by their time, so each export is a batch of its own, not the newest of its group as in a gateway's spool.
A batch whose answer was lost goes again: points may arrive twice, never not at all. Connection strings are in no file.

    batches = Batches(runs_dir(), connection_string)
    batches.keep(state); batches.send(sender, within_s=10)
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ncdemo.spec.follow import RunState
from workloads.metrics.exporters.export import instance
from workloads.metrics.exporters.gateway import Refused, Unreachable, again
from workloads.metrics.exporters.page import Group, OtherNode, groups

FOLDER = ".azure-monitor"


@dataclass(frozen=True)
class Batch:
    """What one group of a run said at one moment."""

    time_s: float
    """Since 1970."""
    key: dict[str, str]
    """Labels of every point."""
    points: list[tuple[str, dict[str, str], float]]
    """Name of the metric, its own labels, value."""


class Sender(Protocol):
    def send(self, batch: Batch) -> list[int]:
        """Send a batch; return which of its points must go again. Raise Unreachable or Refused when that is all of them."""
        ...


class Batches:
    """The batches that wait for one resource of Azure Monitor, one file each."""

    def __init__(self, runs: Path, connection_string: str) -> None:
        self.why = "another process sends"
        """Why what stays could not go, once `send` has returned."""
        self.folder = runs / FOLDER / hashlib.sha256(connection_string.encode()).hexdigest()[:16]

    def keep(self, state: RunState | OtherNode) -> int:
        """Write down what a run has to export; return how many points that is."""
        kept = [batch for group in groups(state, instance(state)) if (batch := _batch(group, _moment(state))).points]
        for batch in kept:
            self._write(self.folder / f"{time.time_ns():020d}-{os.getpid()}.json", batch)
        return sum(len(batch.points) for batch in kept)

    def waiting(self) -> list[Path]:
        """Return what waits, oldest first."""
        return sorted(self.folder.glob("[0-9]*.json"))

    def send(self, sender: Sender, within_s: float) -> tuple[int, int]:
        """Send what waits; return how many batches went and how many stay. The first that can't go ends it.

        Raise Refused, with nothing kept, when none of what could be sent was taken.
        """
        sent, refused, end_s = 0, None, time.monotonic() + within_s
        with self._only(end_s) as alone:
            for path in self.waiting() if alone else ():
                try:
                    again(partial(self._send, sender, path), end_s - time.monotonic())
                    sent += 1
                except Unreachable as error:
                    self.why = str(error)
                    break
                except Refused as error:
                    path.unlink(missing_ok=True)
                    refused = error
        if refused and not sent:
            raise refused
        return sent, len(self.waiting())

    def _send(self, sender: Sender, path: Path, _left_s: float) -> None:
        """Send one batch; what of it must go again stays in its file."""
        batch = _read(path)
        if batch and (left := sender.send(batch)):
            self._write(path, replace(batch, points=[batch.points[i] for i in left]))
            raise Unreachable(f"{len(left)} of {len(batch.points)} points were not taken")
        path.unlink(missing_ok=True)

    def _write(self, path: Path, batch: Batch) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(batch)), encoding="utf-8")
        os.replace(part, path)

    @contextlib.contextmanager
    def _only(self, end_s: float) -> Iterator[bool]:
        """Let one process at a time send, or a batch would go twice; yield False when another still sends at the end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= end_s:
                        yield False
                        return
                    time.sleep(0.05)
                else:
                    yield True
                    return


def _read(path: Path) -> Batch | None:
    """Return a batch; None for what is none of ours, as nothing can be sent of it."""
    with suppress(OSError, ValueError, TypeError):
        return Batch(**json.loads(path.read_text(encoding="utf-8")))
    return None


def _batch(group: Group, time_s: float) -> Batch:
    """Return a group's series; what is no number Azure Monitor can't take (a loss that is NaN)."""
    series = [sample for family in group.collect() for sample in family.samples]
    return Batch(time_s, group.key, [(one.name, dict(one.labels), one.value) for one in series if math.isfinite(one.value)])


def _moment(state: RunState | OtherNode) -> float:
    """Return the newest moment that a run's files tell of: a run exported a day later has its figures where they belong."""
    if isinstance(state, OtherNode):
        return float(state.sample.get("unix_s") or time.time())
    latest_s = max(state.progress_s, state.sample.get("time_s") or 0.0, (state.record.duration_s if state.record else None) or 0.0)
    zero_s, sample = state.started or 0.0, state.sample
    if (unix_s := sample.get("unix_s")) is not None:  # a clock that was set while the run went on; a sample of an attempt before is earlier
        zero_s = max(zero_s, unix_s - sample["time_s"])
    return zero_s + latest_s
