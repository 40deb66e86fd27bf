"""Where ncdemo keeps things on a machine: one definition for the CLI and the workloads."""

import os
from pathlib import Path

NCDEMO_CACHE = "NCDEMO_CACHE"
NCDEMO_RUNS = "NCDEMO_RUNS"
PACKAGE = Path(__file__).resolve().parent.parent.parent


def cache_dir() -> Path:
    """Return NCDEMO_CACHE, else $XDG_CACHE_HOME/ncdemo, else ~/.cache/ncdemo. Models and data sets live there."""
    explicit = os.environ.get(NCDEMO_CACHE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(explicit) if explicit else Path(base) / "ncdemo"


def runs_dir() -> Path:
    """Return NCDEMO_RUNS, else ./runs: each run is one folder in it."""
    return Path(os.environ.get(NCDEMO_RUNS) or "runs")
