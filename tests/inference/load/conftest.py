"""The canned server as a real process."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def canned(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Call it with options to start a server; it returns the URL. The log is tmp_path/sends.jsonl."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> str:
        command = [sys.executable, "-m", "workloads.inference.load.canned", "--log", str(tmp_path / "sends.jsonl"), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        return json.loads(process.stdout.readline())["url"]

    yield start
    for process in started:
        process.terminate()
        assert process.stdout
        process.stdout.close()
        process.wait(10)


@pytest.fixture
def sends(tmp_path: Path) -> Callable[[int], list[dict]]:
    """What the canned server logged of so many requests; it writes a moment after the last byte was sent."""

    def read(count: int) -> list[dict]:
        end_s = time.monotonic() + 10
        while True:
            lines = (tmp_path / "sends.jsonl").read_text().splitlines(keepends=True)
            whole = [json.loads(line) for line in lines if line.endswith("\n")]
            if len(whole) >= count or time.monotonic() > end_s:
                return whole
            time.sleep(0.02)

    return read
