"""In words, what a benchmark ran on: numbers of different machines don't compare."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, str | int | None]:
    """Return the processor's name, the cores this process may use, kernel and Python."""
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": cores,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
