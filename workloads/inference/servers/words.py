"""What the log of a server that loads ends with, for whoever waits: without secrets, and nothing from before the wait.

words = LastWords(folder / "server.log", ["--api-key", "abc"])
words.now()         # "Loading safetensors checkpoint shards:  50%", None: it has said nothing yet
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ncdemo.spec.follow import last_lines
from workloads.metrics.redact import SECRET_NAME, redact, redact_arguments

LONGEST = 300
"""Characters of a line, which is cut to fit a screen anyway."""
SHORTEST_SECRET = 8
"""Of a variable's value: a shorter one may be any word."""


class LastWords:
    def __init__(self, log: Path, arguments: Sequence[str]) -> None:
        """`arguments`: of the user's own; the values of those that are secrets are not shown."""
        self._log, self._before = log, _state(log)
        given = [word.removeprefix(shown.removesuffix("***")) for word, shown in zip(arguments, redact_arguments([*arguments]), strict=True)
                 if shown.endswith("***") and word != shown]  # fmt: skip
        known = [value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET]
        self._secrets = [secret for secret in (*given, *known) if secret]

    def now(self) -> str | None:
        """Return the log's last line; None when nothing was written since this was made."""
        if _state(self._log) == self._before:
            return None
        for line in last_lines(self._log, 1):
            for secret in self._secrets:
                line = line.replace(secret, "***")
            return redact(line).strip()[:LONGEST]
        return None


def _state(log: Path) -> tuple[int, int, int] | None:
    try:
        found = log.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
