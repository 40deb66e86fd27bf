"""Wait for what a sampler beside us has not written yet.

settle(run / "samples.jsonl", now_s, 1 / hz); Meter.read(run / "samples.jsonl")
"""

import time
from pathlib import Path

from ncdemo.spec.follow import last_records


def settle(path: Path, time_s: float, period_s: float) -> None:
    """Wait until the samples of a run with GPUs reach `time_s`, as the sampler writes up to a second late; no longer than 3 s."""
    end_s = time.monotonic() + min(3.0, period_s + 1.0)
    while (last := next(last_records(path), {})).get("gpus") and last.get("time_s", 0.0) < time_s and time.monotonic() < end_s:
        time.sleep(0.05)
