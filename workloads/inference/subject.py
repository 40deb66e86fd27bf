"""What a sweep measures: something that is started once for a set of parameters, and then given cell after cell.

    with Worker("echo", path, settings) as subject:
        answers = subject.measure(what, load, params)

`Worker` is an engine in a process of its own (mode: offline), served.py's an engine's server. A subject never raises what an
engine did: it says why.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from ncdemo.spec.paths import PACKAGE
from ncdemo.spec.result_bench import Client, EngineCounts
from ncdemo.spec.traffic import Load
from workloads.inference.asked import Asked
from workloads.inference.frameworks.base import Answer, Params, Settings, interpreter


@dataclass(frozen=True)
class Failed:
    """Why a cell has no answers: its class, as in Cell.failure, and the reason in words."""

    kind: str
    reason: str


class Subject(Protocol):
    failed: Failed | None
    """Set when it could not start, or has ended: it answers nothing more."""
    load_time_s: float | None
    """None: somebody else loaded it."""
    prefix_cache: str
    """How cached prefixes are kept from answering, as in Gates.prefix_cache."""
    client: Client | None
    """What the load generator did in the last cell; None without one."""
    counted: EngineCounts | None
    """What the engine's own metrics say of the last cell; None without them."""

    def measure(self, what: Asked, load: Load, params: Params) -> list[Answer] | Failed: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Worker:
    """One engine with one model in its own process; `with` ends it."""

    prefix_cache = "off"
    client: Client | None = None
    counted: EngineCounts | None = None

    def __init__(self, engine: str, path: str, settings: Settings) -> None:
        threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        # The same number of threads for every engine.
        env = {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", **os.environ, "NCDEMO_PROGRESS": "0"}
        self._code = tempfile.TemporaryDirectory(prefix="ncdemo-code-")
        if (python := interpreter(engine)) != sys.executable:
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (_our_code(Path(self._code.name)), os.environ.get("PYTHONPATH"))))
        command = [python, "-m", "workloads.inference.worker", engine, path]
        self.failed: Failed | None = None
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        start = time.perf_counter()
        reply = self._ask({"settings": asdict(settings)})
        if "error" in reply:
            self.failed = Failed("load_failed" if reply["kind"] in ("engine_error", "engine_died") else reply["kind"], reply["error"])
        self.load_time_s: float | None = time.perf_counter() - start

    def measure(self, what: Asked, load: Load, params: Params) -> list[Answer] | Failed:
        """Return the answers, or why there are none."""
        assert load.kind == "closed", "the spec allows an offline engine closed loops only"
        if self.failed:
            return self.failed
        reply = self._ask({"prompts": [(p.index, p.token_ids) for p in what.prompts], "params": asdict(params)})
        return [Answer(**a) for a in reply["answers"]] if "answers" in reply else Failed(reply["kind"], reply["error"])

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.failed = Failed("engine_died", f"the engine's process ended (exit {self._process.wait()}); its last words are in the log")
        return {"error": self.failed.reason, "kind": self.failed.kind}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # an engine that died took its end of the pipe with it
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)  # engines with processes of their own end those first
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._code.cleanup()


def _our_code(folder: Path) -> str:
    """Make our packages, and nothing that is installed beside them, importable for another Python."""
    for name in ("ncdemo", "workloads"):
        (folder / name).symlink_to(PACKAGE / name)
    return str(folder)
