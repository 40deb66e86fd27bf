"""What a sweep measures: something that is started once for a set of parameters, and then given cell after cell.

    with Worker("echo", path, settings) as subject:
        answers = subject.measure(what, load, params)

`Worker` is an engine in a process of its own (mode: offline), served.py's an engine's server. A subject never raises what an
engine did: it says why.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Timer
from typing import Any, Protocol, Self

import psutil

from ncdemo.spec.paths import PACKAGE
from ncdemo.spec.result_bench import Client
from ncdemo.spec.result_engine import EngineCounts
from ncdemo.spec.traffic import Load
from workloads.inference.asked import Asked
from workloads.inference.ended import Counter
from workloads.inference.frameworks.base import Answer, Params, Settings, interpreter

START_S = 1800.0
"""How long an engine of ours may take to load: it may read weights for minutes."""


@dataclass(frozen=True)
class Failed:
    """Why a cell could not be measured: its class, as in Cell.failure, and the reason in words."""

    kind: str
    reason: str
    answers: Sequence[Answer] = ()
    """One for each request, where the cell was begun: those that came before it failed are kept."""


class Subject(Protocol):
    failed: Failed | None
    """Set when it could not start, or is of no use any more: it is to be ended, and answers nothing."""
    load_time_s: float | None
    """None: somebody else loaded it."""
    prefix_cache: str
    """How cached prefixes are kept from answering, as in Gates.prefix_cache."""
    client: Client | None
    """What the load generator did in the last cell; None without one."""
    counted: EngineCounts | None
    """What the engine's own metrics say of the last cell; None without them."""

    @property
    def ended(self) -> int:
        """Requests of the cell that have ended, as far as it is told: a thread asks while the cell is measured."""
        ...

    def measure(self, what: Asked, load: Load, params: Params) -> list[Answer] | Failed: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Worker:
    """One engine with one model in its own process; `with` ends it."""

    prefix_cache = "off"
    client: Client | None = None
    counted: EngineCounts | None = None

    def __init__(self, engine: str, path: str, settings: Settings, request_timeout_s: float, start_s: float = START_S) -> None:
        """A cell may take request_timeout_s for each time that its concurrency fits into its requests, loading start_s."""
        self._request_timeout_s, self._killed = request_timeout_s, False
        self._counter = Counter()
        self._code: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self.failed: Failed | None = None
        self.load_time_s: float | None = None
        start = time.perf_counter()
        try:
            self._process = self._start(engine, path)
        except OSError as error:
            self.failed = Failed("load_failed", f"the engine's process can't be started: {error}")
            return
        finally:
            self._counter.close_fd()
        reply = self._ask({"settings": asdict(settings)}, start_s)
        if "error" in reply:
            # Whatever it was, it never loaded.
            again = reply["kind"] in ("engine_error", "engine_died", "engine_hung")
            self.failed = Failed("load_failed" if again else reply["kind"], reply["error"])
        self.load_time_s = time.perf_counter() - start

    def _start(self, engine: str, path: str) -> subprocess.Popen[str]:
        threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        # The same number of threads for every engine.
        env = {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", **os.environ, "NCDEMO_PROGRESS": "0"}
        if (python := interpreter(engine)) != sys.executable:
            self._code = tempfile.TemporaryDirectory(prefix="ncdemo-code-")
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (_our_code(Path(self._code.name)), os.environ.get("PYTHONPATH"))))
        command = [python, "-m", "workloads.inference.worker", engine, path, str(self._counter.fd)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True, pass_fds=(self._counter.fd,))

    @property
    def ended(self) -> int:
        return self._counter.count

    def measure(self, what: Asked, load: Load, params: Params) -> list[Answer] | Failed:
        """Return the answers, or why there are none. An engine that failed may keep what it had begun, so it is of no use then."""
        assert load.kind == "closed", "the spec allows an offline engine closed loops only"
        if self.failed:
            return self.failed
        self._counter.reset()
        limit_s = self._request_timeout_s * math.ceil(len(what.prompts) / params.concurrency)
        reply = self._ask({"prompts": [(p.index, p.token_ids) for p in what.prompts], "params": asdict(params)}, limit_s)
        if "answers" in reply:
            return [Answer(**a) for a in reply["answers"]]
        self.failed = Failed(reply["kind"], reply["error"])
        return self.failed

    def _ask(self, message: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Return what the process answers, or {"error", "kind"}; one that gives no answer in time is killed."""
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        timer = Timer(limit_s, self._kill)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self._process.wait()
        if self._killed:
            return {
                "error": f"the engine gave no answer in {limit_s:g} s and was killed; its last words are in the log",
                "kind": "engine_hung",
            }
        return {"error": f"the engine's process ended (exit {code}); its last words are in the log", "kind": "engine_died"}

    def _kill(self) -> None:
        """Kill the process and what it started, which would hold its end of our pipe open."""
        assert self._process
        self._killed = True
        family = []
        with suppress(psutil.Error):
            family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for process in family:
            with suppress(psutil.Error):
                process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            assert self._process.stdin
            assert self._process.stdout
            with suppress(BrokenPipeError):  # an engine that died took its end of the pipe with it
                self._process.stdin.close()
            try:
                self._process.wait(timeout=30)  # engines with processes of their own end those first
            except subprocess.TimeoutExpired:
                self._kill()
                self._process.wait()
            self._process.stdout.close()
        if self._code:
            self._code.cleanup()


def _our_code(folder: Path) -> str:
    """Make our packages, and nothing that is installed beside them, importable for another Python."""
    for name in ("ncdemo", "workloads"):
        (folder / name).symlink_to(PACKAGE / name)
    return str(folder)
