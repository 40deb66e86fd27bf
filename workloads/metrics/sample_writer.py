"""Samples to a JSON Lines file, from a thread of its own: neither a slow disk nor a slow GPU delays the next tick.

writer = Writer("samples.jsonl", say); writer.add({"time_s": 0.0}, answer, dict); writer.close()
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from workloads.metrics.gpus import Answer
from workloads.metrics.lines import Lines
from workloads.room import lacks_room

OWED_S = 0.05
"""NVML's answer is looked for so often, and a sample waits for no other for longer than IDLE_S."""
IDLE_S = 1.0
RAW = 100
"""Samples held that aren't made numbers of, which take several times the memory."""
MOST = 10_000
"""Samples held while a write to the disk hangs; later ones are lost and counted. One that is full has its own memory (lines.py)."""


class Writer:
    def __init__(self, path: str, say: Callable[[str], None], every: int = 1) -> None:
        """Write `every` so many samples, and the first at once. Raise OSError when the file can't be opened.

        `say` is told once when samples are lost, and of a disk that is full.
        """
        self._path, self._say, self._said, self._every = path, say, False, every
        self._lines, self._overrun, self._added = Lines(path, say, keep_open=True), 0, 0
        try:
            self._lines.open()
        except OSError as error:
            if not lacks_room(error):
                raise
        self._raw: deque[tuple[dict[str, Any], Answer, Callable[[], dict[str, Any]]]] = deque()
        self._samples: deque[tuple[dict[str, Any], Answer]] = deque()
        self._order, self._some, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="writer", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Samples that were taken and are not in the file."""
        return self._lines.lost + self._lines.held + self._overrun

    def add(self, sample: dict[str, Any], gpus: Answer, rest: Callable[[], dict[str, Any]]) -> None:
        """Have a sample written once its GPUs' answer is there; `rest` gives its other fields, asked in the samples' order. Never waits."""
        if len(self._raw) + len(self._samples) >= MOST:
            self._overrun += 1
            if not self._said:
                self._said = True
                self._say(f"{self._path}: the disk takes too long; samples are lost until it answers")
            return
        self._raw.append((sample, gpus, rest))
        self._added += 1
        if self._added % self._every == 0 or self._added == 1:
            self._some.set()
        if len(self._raw) > RAW:  # the writer is held up
            self._number()

    def close(self) -> None:
        """Write what is left; returns when it is in the file, or lost."""
        self._closing.set()
        self._some.set()
        self._thread.join()
        self._lines.flush()
        self._lines.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._some.wait(IDLE_S)
            self._some.clear()
            while self._write() and not self._closing.wait(OWED_S):
                pass
        while self._write():
            time.sleep(0.005)

    def _number(self) -> None:
        with self._order:
            while self._raw:
                sample, gpus, rest = self._raw.popleft()
                self._samples.append((sample | rest(), gpus))

    def _write(self) -> bool:
        """Write the samples, in order, up to the first that NVML still owes its GPUs; return whether it does."""
        self._number()
        lines = []
        while self._samples and (rows := self._samples[0][1].rows()) is not None:
            sample, _ = self._samples.popleft()
            lines.append(json.dumps(sample | {"gpus": rows}, separators=(",", ":")).encode() + b"\n")
        if lines:
            self._lines.write(lines)
        return bool(self._samples)
