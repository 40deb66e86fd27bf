"""How long `ncdemo --help`, `ncdemo doctor` and `python -c pass` take: medians of 10, interleaved, and their ratios.

make bench-cli
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

NCDEMO = str(Path(sys.executable).with_name("ncdemo"))
COMMANDS = {
    "ncdemo --help": (NCDEMO, "--help"),
    "ncdemo doctor": (NCDEMO, "doctor"),
    "python -c pass": (sys.executable, "-c", "pass"),
}
ROUNDS = 10


def timed(*command: str) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    # 1: doctor found something; it took as long.
    assert done.returncode in (0, 1), command
    return time.perf_counter() - start


seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
for _ in range(ROUNDS + 1):
    for name, words in COMMANDS.items():
        seconds[name].append(timed(*words))
medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
bare = medians["python -c pass"]
for name, median in medians.items():
    print(f"{name:<16} {median * 1000:4.0f} ms, {median / bare:4.1f} x python -c pass")
