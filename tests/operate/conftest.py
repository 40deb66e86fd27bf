"""The command line as a process, in a place of its own."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ncdemo.cli import main

ROOT = Path(__file__).resolve().parents[2]


class Commands:
    """Runs `ncdemo` with a runs directory, a home and a PATH of its own."""

    def __init__(self, tmp_path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.runs = tmp_path / "runs"
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        unwanted = ("KUBECONFIG", "NCDEMO_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING", "NCDEMO_RESULTS_URI")
        self.env = {key: value for key, value in os.environ.items() if key not in unwanted} | {
            "NCDEMO_RUNS": str(self.runs),
            "NCDEMO_CACHE": str(tmp_path / "cache"),
            "HOME": str(tmp_path),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "COLUMNS": "160",
        }

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "ncdemo", *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=self.env | env, errors="replace"
        )

    def __call__(self, *args: str, code: int = 0, **env: str) -> str:
        """Return what a command prints; it must end with `code`."""
        process = self.start(*args, **env)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        self.err = err
        return out

    def here(self, *args: str, code: int = 0, **env: str) -> str:
        """The same in this process: no second for each start of Python."""
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - self.env.keys():
                patch.delenv(name)
            for name, value in (self.env | env).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["ncdemo", *args])
            patch.setattr(sys, "stdin", io.StringIO())
            self._capture.readouterr()
            ended = 0
            try:
                main()
            except SystemExit as end:
                ended = end.code or 0
        out, self.err = self._capture.readouterr()
        assert ended == code, f"exit {ended}\n{out}\n{self.err}"
        return out

    def mistake(self, *args: str, **env: str) -> str:
        """Return the one line that a command ends with in error."""
        self.here(*args, code=2, **env)
        assert self.err.count("Error: ") == 1, self.err
        return self.err.strip().splitlines()[-1]


@pytest.fixture
def ncdemo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capfd)


@pytest.fixture
def until() -> Callable[..., None]:
    def until(holds: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it didn't come true in time"
            time.sleep(0.05)

    return until
