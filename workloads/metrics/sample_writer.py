"""Samples to a JSON Lines file, from a thread of its own: neither a slow disk nor a slow GPU delays the next tick.

writer = Writer("samples.jsonl", say); writer.add({"time_s": 0.0, "gpus": answer}); writer.close()
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from workloads.metrics.lines import Lines
from workloads.room import lacks_room

WRITE_S = 0.25
"""Samples of this long are written together: what a kill of the sampler itself loses, with gpus.WAIT_S at most."""
MOST = 10_000
"""Samples held while a write to the disk hangs; later ones are lost and counted. One that is full has its own memory (lines.py)."""


class Writer:
    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        """Raise OSError when the file can't be opened; `say` is told once when samples are lost, and of a disk that is full."""
        self._path, self._say, self._said = path, say, False
        self._lines, self._overrun = Lines(path, say, keep_open=True), 0
        try:
            self._lines.open()
        except OSError as error:
            if not lacks_room(error):
                raise
        self._samples: deque[dict[str, Any]] = deque()
        self._some, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="writer", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Samples that were taken and are not in the file."""
        return self._lines.lost + self._lines.held + self._overrun

    def add(self, sample: dict[str, Any]) -> None:
        """Have a sample written once its `gpus`, an Answer, is there. Never waits."""
        if len(self._samples) >= MOST:
            self._overrun += 1
            if not self._said:
                self._said = True
                self._say(f"{self._path}: the disk takes too long; samples are lost until it answers")
            return
        self._samples.append(sample)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write what is left; returns when it is in the file, or lost."""
        self._closing.set()
        self._some.set()
        self._thread.join()
        self._lines.flush()
        self._lines.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._some.clear()
            while self._samples and not self._closing.wait(WRITE_S):
                self._write()
        while self._samples:
            self._write()
            if self._samples:
                time.sleep(0.005)

    def _write(self) -> None:
        """Write the samples, in order, up to the first that NVML still owes its GPUs."""
        lines = []
        while self._samples and (rows := self._samples[0]["gpus"].rows()) is not None:
            lines.append(json.dumps(self._samples.popleft() | {"gpus": rows}, separators=(",", ":")).encode() + b"\n")
        if lines:
            self._lines.write(lines)
