"""The cluster's MLflow server on this machine: what a stack renders for it, with paths and port of the test, on a real blob service.

    with MlflowServer(tmp_path, azurite.connection_string) as server:
        log_run(run_dir, server.uri)

`scripts/setup_env.sh --extra mlflow --venv .venv-mlflow` brings the server; `make test-ui` runs the tests with it. Ends its own process.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

import yaml

RENDERED = Path(__file__).parent / "golden" / "stacks" / "aks-full.yaml"
"""Equal to what ncdemo/infra renders, as tests/infra/test_stacks.py sees to."""
START_S = 120.0
"""MLflow's import alone takes 10 s on a busy machine."""


def installed() -> bool:
    return importlib.util.find_spec("flask") is not None


def rendered() -> tuple[list[str], dict[str, str]]:
    """Return the command and environment of the server's container."""
    resources = yaml.safe_load(RENDERED.read_text(encoding="utf-8"))["resources"]
    (server,) = [one for one in resources if one["name"] == "monitoring-mlflow"]
    (container,) = server["inputs"]["spec"]["template"]["spec"]["containers"]
    return container["command"], {one["name"]: one["value"] for one in container["env"]}


class MlflowServer:
    def __init__(self, folder: Path, connection_string: str | None) -> None:
        """`connection_string`: of the blob service that holds the container `mlflow`; None: artifacts lie in the folder."""
        self._folder, self._connection_string = folder, connection_string
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self.env: dict[str, str] = {}
        """What the stack sets for it, with this machine's folders."""

    def command(self) -> list[str]:
        command, env = rendered()
        data = str(self._folder)
        self.env = {name: value if value not in ("/data", "/tmp") else data for name, value in env.items()}
        for option, value in {"--host": "127.0.0.1", "--port": str(self._port)}.items():
            command[command.index(option) + 1] = value
        store = command.index("--backend-store-uri") + 1
        command[store] = command[store].replace("/data", data)
        if self._connection_string is None:
            command[command.index("--artifacts-destination") + 1] = f"{data}/artifacts"
        return [str(Path(sys.executable).parent / command[0]), *command[1:]]

    def __enter__(self) -> Self:
        command = self.command()
        env = {**os.environ, **self.env}
        if self._connection_string:
            env["AZURE_STORAGE_CONNECTION_STRING"] = self._connection_string
        log = self._folder / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(command, cwd=self._folder, env=env, stdout=out, stderr=out, start_new_session=True)
        until = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                    assert answer.status == 200
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.__exit__()
                    raise RuntimeError(f"MLflow did not start:\n{log.read_text(errors='replace')[-3000:]}") from None
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()
        shutil.rmtree(self._folder / "artifacts", ignore_errors=True)
