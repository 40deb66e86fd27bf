"""A workload's log on stderr, which mostly is log.txt on the disk of its run: what a full disk takes no more of comes later.

logging.basicConfig(handlers=[Stderr()])
"""

import logging
import os
import sys
from collections import deque

MOST = 1000
"""Messages held for a full disk; the oldest go first."""


class Stderr(logging.Handler):
    """Write each message in one piece to stderr, as what a launcher's other processes say there comes between."""

    def __init__(self) -> None:
        super().__init__()
        self._held: deque[bytes] = deque(maxlen=MOST)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._held.append(self.format(record).encode(errors="replace") + b"\n")
        except Exception:  # a message whose arguments don't fit it
            self.handleError(record)
        self.flush()

    def flush(self) -> None:
        """Write what is held, as far as stderr takes it."""
        try:
            file = sys.stderr.fileno()
            while self._held:
                written = os.write(file, self._held[0])
                if written < len(self._held[0]):
                    self._held[0] = self._held[0][written:]
                else:
                    self._held.popleft()
        except (OSError, ValueError, AttributeError):  # full, closed, or none at all
            return
