"""How much one process of the client can take, measured on this machine, and how much of that a load used.

    python -m workloads.inference.load.ceiling          # prints the ceiling; a benchmark keeps it in its run directory

The ceiling is events received in the window per second of CPU in the window, against a canned server that sends each event by
itself as fast as it can. That is a careful figure: where a server outruns the client, several events come in one read, for less.
A cell that used more than half may have measured the client, and is flagged.
"""

import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from ncdemo.spec.base import SpecError
from workloads.inference.frameworks.base import Params
from workloads.inference.load.plan import Plan, Report, Target, body, request
from workloads.inference.load.run import run
from workloads.inference.load.schedule import closed

STREAMS, REQUESTS, TOKENS = 64, 1500, 64
FLAGGED = 0.5


@dataclass(frozen=True)
class Ceiling:
    machine: str
    """Name, processor and cores: a ceiling holds for one machine."""
    events_per_cpu_s: float
    """What one process can take in a second, when it has a core to itself."""
    events_per_s: float
    """What came in a second then; the canned server was the limit where this is lower."""


@dataclass(frozen=True)
class Headroom:
    used: float
    """The larger of: events a second and process / ceiling, and the busiest process's share of a core. 1 is the limit."""
    events_share: float
    cpu_share: float
    flagged: bool
    """More than half is used: what was measured may be the client."""


def ceiling(keep: Path | None = None) -> Ceiling:
    """Return this machine's ceiling; from the file `keep` when it holds one of this machine, else measured and put there."""
    if keep is not None and keep.is_file():
        try:
            kept = Ceiling(**json.loads(keep.read_text()))
            if kept.machine == _machine():
                return kept
        except (ValueError, TypeError):
            pass  # torn by a kill while it was written; measured again
    measured = measure()
    if keep is not None:
        temporary = keep.with_suffix(".tmp")
        with suppress(OSError):  # on a full disk it is measured again
            temporary.write_text(json.dumps(asdict(measured)))
            temporary.replace(keep)
    return measured


@cache
def measure() -> Ceiling:
    """Measure, once in a process: 64 streams against a canned server for about a second."""
    command = [sys.executable, "-m", "workloads.inference.load.canned"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            url = json.loads(server.stdout.readline())["url"]
            target, params = Target(url, "canned", "chat", timeout_s=60), Params(STREAMS, TOKENS, True, 0.0, 0)
            requests = tuple(request(target, i, body(target, params, prompt=f"{i}")) for i in range(REQUESTS))
            result = run(Plan(target, requests, closed(STREAMS)))
        finally:
            server.terminate()
    failed = [a.error for a in result.answers if a.failure]
    if failed:
        raise SpecError(
            f"load: the client's ceiling can't be measured: {failed[0]}; free memory or ports of this machine, and start it again"
        )
    report = result.report
    return Ceiling(_machine(), report.events / report.cpu_window_s, report.events / report.window_s)


def headroom(report: Report, top: Ceiling) -> Headroom:
    """Return how much of the ceiling a load used."""
    events_share = report.events / report.window_s / report.processes / top.events_per_cpu_s if report.window_s else 0.0
    used = max(events_share, report.busiest_cpu_share)
    return Headroom(used, events_share, report.busiest_cpu_share, used > FLAGGED)


def _machine() -> str:
    return f"{platform.node()} {platform.machine()} {os.cpu_count()} cores Python {platform.python_version()}"


def main() -> None:
    print(json.dumps(asdict(measure()), indent=1))


if __name__ == "__main__":
    main()
