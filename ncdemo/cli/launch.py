"""Start a workload as a process: write its run directory's spec, follow its progress, keep its log.

The seam between the command line and the workloads is data and a process: `python -m workloads... --run <folder>`.
"""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ncdemo.cli.bars import Progress, progress_bars
from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.job import NCDEMO_EXIT_FILE, STOP_S, workload_command, workload_env
from ncdemo.spec.load import dump_spec
from ncdemo.spec.paths import runs_dir
from ncdemo.spec.run_folder import EXIT_FILE, note_process, running_process
from ncdemo.spec.train import TrainSpec


@dataclass(frozen=True)
class Launch:
    """What will be started: rendered first, so that --dry-run prints exactly this."""

    folder: Path
    spec: TrainSpec | BenchSpec
    command: tuple[str, ...]
    env: dict[str, str]
    """Beside the environment of this process."""

    def describe(self) -> str:
        settings = " ".join(f"{k}={v}" for k, v in self.env.items())
        return f"# {self.folder}/spec.yaml\n{dump_spec(self.spec)}\n# starts\n{settings} {' '.join(self.command)}"


def prepare(spec: TrainSpec | BenchSpec, folder: Path) -> Launch:
    """Return the launch of a spec on this machine, in a folder that need not exist yet."""
    return Launch(folder, spec, workload_command(spec, folder, sys.executable), workload_env(spec))


def new_run_folder(name: str) -> Path:
    """Return a folder for a new run, named by UTC time; it doesn't exist yet."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    folder = runs_dir() / f"{name}-{stamp}"
    n = 2
    while folder.exists():
        folder, n = runs_dir() / f"{name}-{stamp}-{n}", n + 1
    return folder


def unfinished(folder: Path) -> Path:
    """Return the folder of a run that can go on. Raise SpecError when it is finished, or goes on already."""
    with suppress(OSError, ValueError, KeyError):
        if json.loads((folder / "result.json").read_text())["status"] == "finished":
            raise SpecError(f"--resume {folder}: this run is finished; leave --resume out to start another")
    pid = None
    with suppress(ValueError):  # on another machine, or nobody noted it: not known
        pid = running_process(folder)
    if pid is not None:
        raise SpecError(f"--resume {folder}: this run goes on (process {pid}); wait for its end, or end it with: kill {pid}")
    return folder


def start(launch: Launch, progress: Progress | None = None) -> None:
    """Run a workload to its end. Raise SpecError with its own last line when it fails, KeyboardInterrupt on Ctrl-C."""
    launch.folder.mkdir(parents=True, exist_ok=True)
    (launch.folder / "spec.yaml").write_text(dump_spec(launch.spec), encoding="utf-8")
    log, exits = launch.folder / "log.txt", launch.folder / EXIT_FILE
    exits.unlink(missing_ok=True)
    env = {**os.environ, **launch.env, "NCDEMO_PROGRESS": "1", "PYTHONUNBUFFERED": "1", NCDEMO_EXIT_FILE: str(exits.absolute())}
    with log.open("ab") as errors:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the workload in good order.
        process = subprocess.Popen(launch.command, stdout=subprocess.PIPE, stderr=errors, env=env, start_new_session=True, text=True)
    with ending(process, "the workload"):
        note_process(launch.folder, process.pid)
        assert process.stdout
        for line in process.stdout:
            message = _message(line)
            if progress and message:
                progress(message)
        code = process.wait()
    for warning in _warnings(log):
        click.echo(warning, err=True)
    if code != 0:
        raise SpecError(failure(launch.folder, code))


def _message(line: str) -> dict[str, Any] | None:
    """Read a line of progress; libraries may print other things."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and {"phase", "done", "total"} <= message.keys() else None


def _warnings(log: Path) -> list[str]:
    """Return what the workload itself (no library) warned of: nothing that was ignored or replaced stays in a log alone."""
    lines = log.read_text(errors="replace").splitlines()
    return [f"Warning: {found[1]}" for line in lines if (found := re.search(r" WARNING (?:ncdemo|workloads)[\w.]*: (.*)", line))]


def failure(folder: Path, code: int) -> str:
    """Say in one line why a run failed, from its own record."""
    try:
        reason = json.loads((folder / "result.json").read_text())["reason"]
    except (OSError, ValueError, KeyError):
        reason = None
    log = folder / "log.txt"
    if not reason and log.exists():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        reason = (said or lines or [""])[-1]
    return f"{folder}: the run failed (exit {code}): {reason or 'it left no reason'}; the whole log is {log}"


@contextmanager
def ending(process: subprocess.Popen[Any], what: str) -> Iterator[None]:
    """However the body ends, a process (of its own session) and its children end: asked first, killed after 25 s, in which training saves."""
    try:
        yield
    finally:
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
        # A launcher may be gone before the ranks it started have written how they ended.
        until = time.monotonic() + STOP_S
        while _signal_group(process, 0) and time.monotonic() < until:
            process.poll()
            time.sleep(0.05)
        if _signal_group(process, signal.SIGKILL):
            click.echo(f"{what} didn't end in 25 s and was killed", err=True)
        process.wait()


def _signal_group(process: subprocess.Popen[Any], number: int) -> bool:
    """Signal a workload and its children; return False when none is left. Signal 0 only asks."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def python_module(module: str, *args: str) -> tuple[str, ...]:
    """Return the command of a workload module; never a script path, which would hide installed packages."""
    return (sys.executable, "-m", module, *args)


def call(module: str, *args: str) -> None:
    """Run a small workload in the foreground, its output being ours. Exit with its code when it fails."""
    code = subprocess.call(python_module(module, *args))
    if code:
        sys.exit(code)


def call_quietly(module: str, *args: str) -> None:
    """Run a small workload; raise SpecError with its last line when it fails."""
    done = subprocess.run(python_module(module, *args), capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it left no reason"]
        raise SpecError(lines[-1].removeprefix("Error: "))


def seconds_since(start_s: float) -> str:
    """Return a duration for people: 75 -> '1 min 15 s'."""
    minutes, seconds = divmod(round(time.monotonic() - start_s), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def follow(launch: Launch, dry_run: bool) -> None:
    """Run a launch under progress bars and print its folder; or, on a dry run, print what it is."""
    if dry_run:
        click.echo(launch.describe())
        return
    try:
        with progress_bars() as progress:
            start(launch, progress)
    except KeyboardInterrupt:
        click.echo(f"{launch.folder}: stopped; go on with: ncdemo jobs retry {launch.folder.name}", err=True)
        raise
    click.echo(launch.folder)
