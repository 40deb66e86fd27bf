"""What goes wrong with GPUs, named once: why clocks are held down, and errors counted from the lines of samples.jsonl.

errors = GpuErrors(); errors.take(sample); errors.xids, errors.ecc
"""

import re
from typing import Any

from ncdemo.spec.attempts import Attempts

SLOWDOWNS = {
    "power_cap": "power cap",
    "hw_slowdown": "hardware",
    "sw_thermal": "heat",
    "hw_thermal": "heat",
    "hw_power_brake": "power brake",
}
"""Throttle reasons that slow a busy GPU, in words; the others say that it idles or does what it was told."""
USUAL = "power_cap"
"""A busy H100 runs at its power cap; the others of SLOWDOWNS no healthy GPU has."""
FAULTS = {reason: words for reason, words in SLOWDOWNS.items() if reason != USUAL}
KILLED_XID = 45
"""What the driver logs when a process is killed: no fault of the GPU."""
ONCE = re.compile(rb'"xids": ?\[\d|"scheduling": ?"')
"""In the line of a sample with an XID, and in an attempt's first."""
ECC = re.compile(rb'"ecc_uncorrected": ?(\d+)')


class GpuErrors:
    """XIDs of the newest attempt, and uncorrected memory errors since the run began. Of maybe a million lines, `tells` finds those worth parsing."""

    def __init__(self) -> None:
        self.xids: dict[tuple[int, int], int] = {}
        """GPU and XID -> how many, in the newest attempt: an earlier one may have been on another machine."""
        self.ecc: dict[int, int] = {}
        """GPU -> uncorrected memory errors that came while the run sampled it; a GPU that counts none of them is absent."""
        self._last: dict[int, int] = {}
        self._counts: list[bytes] = []
        self._attempts, self._attempt = Attempts(), 0

    def forget(self) -> None:
        """Begin to count again: the file has begun again."""
        for known in (self.xids, self.ecc, self._last, self._counts):
            known.clear()
        self._attempts, self._attempt = Attempts(), 0

    def tells(self, line: bytes) -> bool:
        """Say whether a sample has an XID, is an attempt's first, or has other ECC counts than the one before."""
        once = ONCE.search(line) is not None
        if once:
            self._counts = []  # an attempt's first counts are taken, also where they are those of the one before
        counts = ECC.findall(line)
        if not counts or counts == self._counts:
            return once
        self._counts = counts
        return True

    def take(self, sample: dict[str, Any]) -> None:
        attempt = self._attempts.of(sample.get("tick"), sample.get("scheduling"))
        if attempt != self._attempt:
            self.xids.clear()
            self._last.clear()  # another machine, or a driver that was loaded again
            self._attempt = attempt
        for gpu in sample.get("gpus") or ():
            index = gpu["index"]
            for xid in gpu.get("xids") or ():
                self.xids[index, xid] = self.xids.get((index, xid), 0) + 1
            if (count := gpu.get("ecc_uncorrected")) is not None:
                self.ecc[index] = self.ecc.get(index, 0) + max(0, count - self._last.get(index, count))
                self._last[index] = count
