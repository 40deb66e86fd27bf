"""Export a run to a Pushgateway, retire it there, and keep the gateway from growing for ever.

Exporting again replaces what is there. A gateway that is down costs a run `within_s` and loses nothing: the spool keeps it.

    export_run(Path("runs/demo"), "http://127.0.0.1:9091", within_s=10)
"""

import logging
import os
import socket
from pathlib import Path

from ncdemo.spec.base import SpecError
from ncdemo.spec.follow import RunState
from ncdemo.spec.job import NCDEMO_PUSHGATEWAY
from ncdemo.spec.job_labels import PROMETHEUS_JOB
from ncdemo.spec.paths import runs_dir
from ncdemo.spec.run_folder import RESULT_FILE
from workloads.metrics.exporters.gateway import Gateway, Pushed, Unreachable, group_path
from workloads.metrics.exporters.page import Group, OtherNode, groups
from workloads.metrics.exporters.spool import Spool

LOG = logging.getLogger(__name__)
KEEP_RUNS = 50
"""Runs that a gateway holds (Prometheus keeps the history of all); beyond, the ones that were pushed longest ago are retired, never one that still runs."""
SILENT_S = 3600.0
"""A run that says it runs, and hasn't pushed for so long, does not."""


def resolve_gateway(setting: str | None) -> str | None:
    """Return the address that telemetry.pushgateway means; None for no gateway."""
    return os.environ.get(NCDEMO_PUSHGATEWAY) or None if setting == "default" else setting


def instance(state: RunState | OtherNode) -> str:
    """Return the machine that a run ran on, wherever it is exported from; a node exports itself."""
    record = state.record if isinstance(state, RunState) else None
    return (record and record.instance) or this_machine()


def this_machine() -> str:
    return os.environ.get("NODE_NAME") or socket.gethostname()


def spool_dir() -> Path:
    return runs_dir() / ".pushgateway"


def push(state: RunState | OtherNode, spool: Spool, within_s: float, alive_s: float | None = None) -> bool:
    """Push a run's groups, `alive_s` as groups() has it; return False when some had to be kept for later."""
    pushed = True
    for group in groups(state, instance(state), alive_s):
        # When one can't go, the next need not be waited for.
        pushed &= spool.deliver("PUT", group.key, group.text(), within_s if pushed else 0.0)
    return pushed


def export_run(folder: Path, url: str, within_s: float = 10.0, keep: int = KEEP_RUNS) -> bool:
    """Push a run, then what waited for the gateway, and retire the oldest beyond `keep`. False: it waits in the spool now."""
    gateway, state = Gateway(url), RunState(folder)
    state.update()
    if state.record is None:
        raise SpecError(f"{folder}/result.json can't be read; use the version of ncdemo that wrote it")
    spool = Spool(spool_dir(), gateway)
    if not push(state, spool, within_s):
        return False
    spool.send(within_s)
    retire_oldest(gateway, keep)
    return True


def retire_run(run: str, url: str, within_s: float = 10.0) -> tuple[int, bool]:
    """Delete a run's groups, by its folder or its id. Return how many, and whether now (else they wait in the spool).

    Raise SpecError when the gateway is down and nothing here says what it has of the run.
    """
    gateway = Gateway(url)
    spool = Spool(spool_dir(), gateway)
    folder = next((path for path in (Path(run), runs_dir() / run) if (path / RESULT_FILE).is_file()), None)
    known = _keys(folder) if folder else []
    name = known[0]["run"] if known else Path(run).name
    waiting = spool.keys()
    try:
        keys = [found.labels for found in gateway.groups()]
    except Unreachable as error:
        # Without the gateway, only the run's folder and what waits know what was pushed.
        keys = known
        if not known and not any(key.get("run") == name for key in waiting):
            raise SpecError(
                f"{error}, and {run} is no run's folder here nor under {runs_dir()}, so what it has of that run isn't known; "
                "retire it once the gateway is back, or give its folder"
            ) from None
    keys = [key for key in [*keys, *waiting] if key.get("job") == PROMETHEUS_JOB and key.get("run") == name]
    keys = list({group_path(key): key for key in keys}.values())
    gone = [spool.deliver("DELETE", key, within_s=within_s) for key in keys]
    return len(keys), all(gone)


def _keys(folder: Path) -> list[dict[str, str]]:
    state = RunState(folder)
    state.update()
    return [group.key for group in groups(state, instance(state))]


def retire_oldest(gateway: Gateway, keep: int) -> int:
    """Delete what is beyond `keep` runs; return how many runs went. What can't be reached now is left for the next export."""
    try:
        runs: dict[str, list[Pushed]] = {}
        for found in gateway.groups():
            if found.labels.get("job") == PROMETHEUS_JOB and "run" in found.labels:
                runs.setdefault(found.labels["run"], []).append(found)
        newest = max((_pushed_at(found) for found in runs.values()), default=0.0)
        over = sorted((run for run in runs.values() if not _lives(run, newest)), key=_pushed_at)[: max(0, len(runs) - keep)]
        for run in over:
            for found in run:
                gateway.send("DELETE", found.labels, within_s=1.0)
    except Unreachable as error:
        LOG.info("%s; nothing is retired", error)
        return 0
    return len(over)


def _pushed_at(run: list[Pushed]) -> float:
    return max(found.at_s for found in run)


def _lives(run: list[Pushed], now: float) -> bool:
    """Say whether a run is under way; `now` is the newest push, so that no clock but the gateway's counts."""
    return any(found.running for found in run) and now - _pushed_at(run) < SILENT_S


def dry_run(folder: Path) -> str:
    """Return what would be pushed, group by group."""
    state = RunState(folder)
    state.update()
    return "\n".join(_shown(group) for group in groups(state, instance(state)))


def _shown(group: Group) -> str:
    return f"# group {' '.join(f'{name}={value}' for name, value in group.key.items())}\n{group.text()}"
