"""Samples to a JSON Lines file, from a thread of its own: neither a slow disk nor a slow GPU delays the next tick.

writer = Writer("samples.jsonl"); writer.add({"time_s": 0.0, "gpus": answer}); writer.close()
"""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

WRITE_S = 0.25
"""Samples of this long are written together: what a kill of the sampler itself loses, with gpus.WAIT_S at most."""
MOST = 10_000
"""Samples held while the disk takes none; later ones are lost and counted."""


class Lines:
    """A file that holds whole lines only; a line that doesn't fit is lost and counted."""

    def __init__(self, path: str) -> None:
        self.lost = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._file).st_size

    def write(self, lines: list[bytes]) -> str | None:
        """Append lines that end with a newline, as many as fit; return why some did not."""
        data, whole = b"".join(lines), 0
        try:
            written = os.write(self._file, data)
            whole = data.rfind(b"\n", 0, written) + 1
            if written == len(data):
                return None
            os.ftruncate(self._file, self._size + whole)
            why = f"{written} of {len(data)} bytes were written"
        except OSError as error:
            why = str(error)
        finally:
            self._size += whole
        self.lost += len(lines) - data.count(b"\n", 0, whole)
        return why


class Writer:
    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        """Raise OSError when the file can't be opened; `say` is told once when samples are lost."""
        self._path, self._say, self._said = path, say, False
        self._lines, self._overrun = Lines(path), 0
        self._samples: deque[dict[str, Any]] = deque()
        self._some, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="writer", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Samples that were taken and not written."""
        return self._lines.lost + self._overrun

    def add(self, sample: dict[str, Any]) -> None:
        """Have a sample written once its `gpus`, an Answer, is there. Never waits."""
        if len(self._samples) >= MOST:
            self._overrun += 1
            self._warn("the disk takes too long")
            return
        self._samples.append(sample)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write what is left; returns when it is in the file."""
        self._closing.set()
        self._some.set()
        self._thread.join()

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
        if lines and (why := self._lines.write(lines)):
            self._warn(why)

    def _warn(self, why: str) -> None:
        if not self._said:
            self._said = True
            self._say(f"{self._path}: {why}; samples are lost until there is room")
