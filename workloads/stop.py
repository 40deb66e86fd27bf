"""A request to stop, by SIGTERM or SIGINT: at once, or as soon as the work has reached a point from which it can go on.

stop = StopRequest().install()
load()                          # a signal here raises Interrupted
with stop.deferred():
    for step in steps:          # here it only sets stop.name
        ...
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO_S = 5.0
"""A launcher passes on what its whole group was told already: the same signal within so long is not a second request."""


class Interrupted(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no library swallows it."""


class StopRequest:
    """What signals ask of this process. The first may be deferred; a second, later one never is."""

    def __init__(self) -> None:
        self.name: str | None = None
        """Of the first signal; None before it."""
        self._since = 0.0
        self._deferred = False

    def install(self) -> Self:
        """Take over both signals, for good: one that comes while the process ends must not cut that off."""
        for number in SIGNALS:
            signal.signal(number, self._asked)
        return self

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the body look at `name` by itself. A request that it left unanswered is raised at its end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self.name:
            self._raise()

    def _asked(self, number: int, _frame: Any) -> None:
        now = time.monotonic()
        again = self.name is not None and now - self._since > ECHO_S
        if self.name is None:
            self.name, self._since = signal.Signals(number).name, now
        if not self._deferred or again:
            self._raise()

    def _raise(self) -> None:
        # From here on the process only says how it ended; another signal, e.g. systemd's beside our launcher's, would cut that off.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted(self.name)
