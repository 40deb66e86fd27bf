"""A process beside a run that serves it and must never harm it: it may fail to start, hang or die, and the run goes on.

with Companion("workloads.metrics.sampler", ["--out", ...], name="the sampler", about=path, lacking="no hardware samples"): train()
"""

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

LOG = logging.getLogger(__name__)
EXIT_S = 0.9


class Companion:
    """Run a module while the context is open. It ends when its standard input says so or closes. Never raises into the workload."""

    def __init__(self, module: str, arguments: list[str], *, name: str, about: Path | str, lacking: str, late: str, rest: str,
                 env: dict[str, str] | None = None) -> None:  # fmt: skip
        """The words are for warnings: what is lacking without it, what when it ends late, what of the rest when it ends early."""
        self.pid: int | None = None
        """Its process, None when there is none."""
        self.answer = ""
        """What it wrote on standard output, once it has ended."""
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._name, self._about, self._lacking, self._late, self._rest = name, about, lacking, late, rest
        self._process: subprocess.Popen[bytes] | None = None
        self._owner, self._env = os.getpid(), env or {}

    def __enter__(self) -> "Companion":
        try:
            # The session of its own keeps Ctrl-C from it: it ends when the run does, after the run's own shutdown.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env={**child_env(), **self._env},
            )
            self.pid = self._process.pid
        except Exception as error:  # no telemetry is better than no run
            LOG.warning("%s: %s, %s did not start (%s: %s)", self._about, self._lacking, self._name, type(error).__name__, error)
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None or os.getpid() != self._owner:
            return
        early = process.poll()
        try:
            with contextlib.suppress(OSError):
                _pipe(process.stdin).write(b".")
            with contextlib.suppress(OSError):
                _pipe(process.stdin).close()
            process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            LOG.warning("%s: %s did not end within %s s and was killed; %s", self._about, self._name, EXIT_S, self._late)
        finally:
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            self.answer = _read(process)
        if early is not None or process.returncode > 0:
            LOG.warning("%s: %s ended early (exit code %s); %s", self._about, self._name, process.returncode, self._rest)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # the process was started with pipes
    return pipe


def _read(process: subprocess.Popen[bytes]) -> str:
    """Return what is in the pipe, without waiting for more."""
    with contextlib.suppress(OSError), _pipe(process.stdout) as pipe:
        os.set_blocking(pipe.fileno(), False)
        return (pipe.read() or b"").decode(errors="replace")
    return ""


def child_env() -> dict[str, str]:
    """Return the environment with this package importable, wherever the run has changed to."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))}
