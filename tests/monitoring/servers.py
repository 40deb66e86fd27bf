"""Real servers for tests: Debian's Pushgateway, Prometheus and Alertmanager, as processes on free loopback ports."""

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def needs(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(
            f"{program} is not installed (Debian's packages prometheus, prometheus-pushgateway and prometheus-alertmanager have it)"
        )
    return path


@contextlib.contextmanager
def serving(command: list[str], url: str, log: Path) -> Iterator[str]:
    """Run a server until the body ends; enter when `url`/-/ready answers."""
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent) as process:
        try:
            end = time.monotonic() + 15
            while not _ready(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, f"not ready in 15 s: {log.read_text()}"
                time.sleep(0.02)
            yield url
        finally:
            process.kill()


def _ready(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/-/ready", timeout=1).status == 200
    except (OSError, urllib.error.URLError):
        return False


def pushgateway(folder: Path, port: int | None = None) -> contextlib.AbstractContextManager[str]:
    """Start a Pushgateway that keeps nothing on disk."""
    port = port or free_port()
    command = [needs("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}", "--persistence.file="]
    return serving(command, f"http://127.0.0.1:{port}", folder / "pushgateway.log")


def prometheus(folder: Path, config: Path) -> contextlib.AbstractContextManager[str]:
    """Start a Prometheus with its data in `folder`."""
    port = free_port()
    command = [needs("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    return serving([*command, f"--web.listen-address=127.0.0.1:{port}"], f"http://127.0.0.1:{port}", folder / "prometheus.log")


def alertmanager(folder: Path, config: Path) -> contextlib.AbstractContextManager[str]:
    """Start an Alertmanager with its data in `folder`."""
    port = free_port()
    command = [
        needs("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alerts'}",
        "--cluster.listen-address=",
    ]
    return serving([*command, f"--web.listen-address=127.0.0.1:{port}"], f"http://127.0.0.1:{port}", folder / "alertmanager.log")
