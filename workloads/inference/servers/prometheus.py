"""Prometheus' text format to plain numbers: what an engine counted about itself."""

import math
from collections.abc import Iterable

MOST = ("kv_cache_used",)
"""Shares: of several ranks the fullest counts, where the rest is added up."""


def figures(text: dict[str, float], names: Iterable[tuple[str, str]]) -> dict[str, float | None]:
    """Return our name -> value of what an engine counted, over all its labels; None for what it doesn't have."""
    found: dict[str, float | None] = {}
    for ours, theirs in names:
        values = [value for key, value in text.items() if key.partition("{")[0] == theirs and math.isfinite(value)]
        found[ours] = (max(values) if ours in MOST else sum(values)) if values else None
    return found


def parse(text: str, prefix: str = "") -> dict[str, float]:
    """Return each sample whose name begins with the prefix, keyed by name and labels as written. ValueError where a line isn't one."""
    values = {}
    for line in text.splitlines():
        if not line.startswith(prefix) or line.startswith("#") or not line.strip():
            continue
        # Labels may hold blanks and braces in quotes; the value is the first word after them.
        end = line.rfind("}") + 1
        name, _, rest = (line[:end], "", line[end:]) if end else line.strip().partition(" ")
        value, *_ = rest.split() or [""]
        values[name] = float(value)
    return values
