"""`ncdemo ui`: the runs of this machine in MLflow's own pages, from runs/mlflow.db, at an address that only this machine reaches."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

import click

HOST = "127.0.0.1"
START_S = 120.0
"""MLflow's import alone takes 10 s on a busy machine."""


@click.command("ui")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def command(port: int) -> None:
    """Serve runs/mlflow.db until Ctrl-C, and print the address. Its artifacts lie in runs/mlartifacts."""
    from ncdemo.cli.launch import ending
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.paths import runs_dir

    if importlib.util.find_spec("flask") is None:
        raise SpecError(
            "MLflow's server isn't installed; run scripts/setup_env.sh --extra mlflow --venv .venv-mlflow, then .venv-mlflow/bin/ncdemo ui"
        )
    _free(port)
    runs = runs_dir().absolute()
    runs.mkdir(parents=True, exist_ok=True)
    log, env = runs / "mlflow-server.log", {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ}
    # Ended by a signal, it takes the server with it, as by Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    with log.open("ab") as out:
        # Runs logged without a server have their artifacts beside the database, so it is started there.
        process = subprocess.Popen(server(runs, port), cwd=runs, env=env, stdout=out, stderr=out, start_new_session=True)
    with ending(process, "MLflow's server"):
        _wait(process, port, log)
        click.echo(f"http://{HOST}:{port}")
        sys.exit(process.wait())


def server(runs: Path, port: int) -> list[str]:
    """Return the command of the server."""
    stores = ["--backend-store-uri", f"sqlite:///{runs / 'mlflow.db'}", "--artifacts-destination", str(runs / "mlartifacts")]
    return [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1", *stores]


def _free(port: int) -> None:
    from ncdemo.spec.base import SpecError

    with socket.socket() as tried:
        # Without it, a port whose last connections are a minute old would count as taken.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise SpecError(f"--port {port}: {error.strerror}; give another, e.g. --port {port % 65535 + 1}") from None


def _wait(process: subprocess.Popen[Any], port: int, log: Path) -> None:
    """Return once it answers. Raise SpecError with its own last line when it ends before."""
    from ncdemo.spec.base import SpecError

    end = time.monotonic() + START_S
    while True:
        try:
            if urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2).status == 200:
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
        if process.poll() is not None or time.monotonic() > end:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
            raise SpecError(f"MLflow's server did not start: {lines[-1]}; see the whole log: {log}")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
