"""How long `ncdemo --help` takes: median of 10, interleaved with `python -c pass`, and their ratio.

make bench-cli
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

NCDEMO = Path(sys.executable).with_name("ncdemo")


def timed(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


help_s, pass_s = [], []
for _ in range(11):
    help_s.append(timed(str(NCDEMO), "--help"))
    pass_s.append(timed(sys.executable, "-c", "pass"))
ours, bare = statistics.median(help_s[1:]), statistics.median(pass_s[1:])
print(f"ncdemo --help {ours * 1000:.0f} ms, python -c pass {bare * 1000:.0f} ms (medians of 10), ratio {ours / bare:.1f}")
