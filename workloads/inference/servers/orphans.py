"""What a killed harness leaves behind: found by what this harness wrote down before it started a server, and ended.

A record holds a token that only the server's processes have in their environment, and the pid and start time of each
process it was seen with (some engines overwrite their environment with a title). Nothing else is ever touched.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from ncdemo.spec.paths import cache_dir

TOKEN = "NCDEMO_SERVER"
GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess)


def records_dir() -> Path:
    """Return where the records lie: one file for each running server of this user."""
    return cache_dir() / "servers"


def write_record(token: str, leader: int | None = None) -> None:
    """Write down a server of this process, with the processes it has now; atomically, for a kill may come at any time."""
    records_dir().mkdir(parents=True, exist_ok=True)
    record = {"owner": _identity(psutil.Process()), "seen": [_identity(p) for p in members(token, leader)]}
    path = records_dir() / f"{token}.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record))
    new.replace(path)


def drop_record(token: str) -> None:
    (records_dir() / f"{token}.json").unlink(missing_ok=True)


def members(token: str, leader: int | None = None, seen: Iterable[list[float]] = ()) -> list[psutil.Process]:
    """Return the living processes of a server: by token, by a leader known to be ours, or by pid and start time."""
    known = {(int(pid), start) for pid, start in seen}
    found = []
    for process in psutil.process_iter():
        with suppress(*GONE, ProcessLookupError, PermissionError):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            by_session = leader is not None and os.getsid(process.pid) == leader
            if by_session or tuple(_identity(process)) in known or _token(process) == token:
                found.append(process)
    return found


def end_orphans() -> list[int]:
    """End every server whose harness is gone; return the pids that were ended."""
    ended = []
    for path in sorted(records_dir().glob("*.json")):
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:  # another harness was first
            continue
        if _alive(record["owner"]):
            continue
        ended += end(partial(members, path.stem, seen=record["seen"]))
        path.unlink(missing_ok=True)
    return ended


def end(find: Callable[[], list[psutil.Process]], grace_s: float = 10.0) -> list[int]:
    """SIGTERM what find() returns, then, after the grace, SIGKILL until find() returns nothing; return the pids."""
    ended: set[int] = set()
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while processes := find():
        late = time.monotonic() > deadline
        for process in processes:
            if late or process.pid not in asked:
                with suppress(psutil.NoSuchProcess):  # psutil compares the start time first: a reused pid is safe
                    process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
        asked |= {p.pid for p in processes}
        ended |= asked
        psutil.wait_procs(processes, timeout=0.1)
    return sorted(ended)


def _identity(process: psutil.Process) -> list[float]:
    return [process.pid, process.create_time()]


def _alive(identity: list[float]) -> bool:
    try:
        process = psutil.Process(int(identity[0]))
        return process.create_time() == identity[1] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _token(process: psutil.Process) -> str | None:
    return process.environ().get(TOKEN)
