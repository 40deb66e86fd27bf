"""What `ncdemo bench run` shows while an engine loads: on a terminal and in plain output, of a server that takes its time."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ncdemo.cli.bars import Plain, waiting
from ncdemo.spec import BenchSpec, dump_spec
from workloads.inference.servers.words import LastWords

# Stands where SGLang's own Python would: it tells a version, then takes LOADS seconds before it is the canned server.
SLOW = """#!{python}
import os, sys, time
if sys.argv[1] == "-c":
    print("sglang 0.0")
    sys.exit()
print("loading from https://me:hunter2@host/models, not [/red] of markup", flush=True)
print("key is", sys.argv[sys.argv.index("--api-key") + 1], flush=True)
sys.stdout.write("Loading shards:  0%\\rLoading shards: \\x1b[31m50%\\x1b[0m of [bold] s3cr3t-word")
sys.stdout.flush()
time.sleep({loads_s})
argv = ["-m", "workloads.inference.load.canned", "--port", sys.argv[sys.argv.index("--port") + 1]]
os.execv(sys.executable, [sys.executable, *argv])
"""
SHOWN = "Loading shards: 50% of [bold] ***"


@pytest.fixture
def slow(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    """Return the command of a benchmark of an engine that loads for so many seconds."""
    python, spec_file = tmp_path / "python", tmp_path / "spec.yaml"
    monkeypatch.setenv("NCDEMO_SGLANG_PYTHON", str(python))
    monkeypatch.setenv("NCDEMO_RUNS", str(tmp_path / "runs"))

    def command(loads_s: float) -> list[str]:
        python.write_text(SLOW.format(python=sys.executable, loads_s=loads_s))
        python.chmod(0o755)
        spec = {
            "mode": "server", "engines": ["sglang"], "concurrency": [2], "prompts": {"count": 4}, "sampling": {"max_new_tokens": 4},
            "max_model_len": 512, "telemetry": {"sample_hz": 0.0, "mlflow_uri": None}, "client_processes": 1, "precision": "fp32",
            "models": [{"name": str(tiny_model), "label": "tiny"}], "server_args": {"sglang": ["--api-key", "s3cr3t-word"]},
        }  # fmt: skip
        spec_file.write_text(dump_spec(BenchSpec.model_validate_json(json.dumps(spec))))
        return [sys.executable, "-m", "ncdemo", "bench", "run", "-c", str(spec_file)]

    return command


def test_plain_output_says_now_and_then_what_loads(slow) -> None:
    done = subprocess.run(slow(11), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "loading sglang tiny" in line]
    assert 2 <= len(lines) <= 3, "after 5 and 10 s, and after 20 where the machine is busy"
    assert re.fullmatch(rf"loading sglang tiny, 1?\d s: {re.escape(SHOWN)}", lines[-1])
    assert "s3cr3t" not in done.stderr
    assert "\x1b" not in done.stderr


def test_a_terminal_shows_what_loads_and_then_no_more(slow) -> None:
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "40"}
    with subprocess.Popen(slow(3), stdout=follower, stderr=follower, env=env) as shown:
        os.close(follower)
        output = b""
        while select.select([leader], [], [], 100)[0]:
            try:
                output += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
        assert shown.wait(20) == 0, output.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    seconds = [int(found) for found in re.findall(rf"loading sglang tiny, (\d+) s: {re.escape(SHOWN)}", text)]
    assert len(set(seconds)) >= 2
    assert seconds == sorted(seconds)
    assert "s3cr3t" not in text
    assert "1/1" in text
    assert "loading" not in text[text.rindex("1/1") :]


def test_the_line_of_a_wait() -> None:
    about = {"phase": "bench", "done": 0, "total": 8}
    assert waiting(about) == ""
    assert waiting({**about, "state": "loading vllm tiny", "state_s": 31.9}) == "loading vllm tiny, 31 s"
    assert waiting({**about, "state": "loading vllm tiny", "state_s": 150.2, "log": "x"}) == "loading vllm tiny, 2 min 30 s: x"


def test_a_long_wait_is_told_ever_less_often() -> None:
    said: list[str] = []
    plain = Plain(said.append)
    for half_seconds in range(600):
        plain({"state": "loading a", "state_s": half_seconds / 2})
    assert [line.removeprefix("loading a, ") for line in said] == [
        "5 s", "10 s", "20 s", "40 s", "80 s", "2 min 20 s", "3 min 20 s", "4 min 20 s",
    ]  # fmt: skip
    said.clear()
    for message in ({"cell_s": 1.0}, {"state": "loading b", "state_s": 4.0}, {"state": "loading b", "state_s": 5.0}):
        plain(message)
    plain({"state": "loading b", "state_s": 0.5})
    plain({"state": "loading b", "state_s": 6.0})
    assert said == ["loading b, 5 s", "loading b, 6 s"], "a wait that is begun anew is told anew"


def test_last_words_are_of_this_wait_and_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "0123456789")
    log = tmp_path / "server.log"
    assert LastWords(log, []).now() is None
    log.write_text("of an earlier start\n")
    words = LastWords(log, ["--a", "1", "--api-key=abc", "--token", "t0ps"])
    assert words.now() is None
    with log.open("a") as file:
        file.write(f"abc t0ps 0123456789 hf_{'x' * 20} 1 {'long ' * 100}\n\n")
    assert words.now().startswith("*** *** *** *** 1 long long")
    assert len(words.now()) == 300


def test_a_wait_can_be_stopped(slow) -> None:
    with subprocess.Popen(slow(100), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if "loading sglang tiny" in line)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert "5 s" in line
    assert process.returncode != 0
