"""kill -9 at random moments, also while a checkpoint is written, also one rank of two: does every run end as if nothing had happened?

    python benchmarks/kill_soak.py --kills 50 --ranks 2
    python benchmarks/kill_soak.py --kills 20 --uri az://checkpoints        # with AZURE_STORAGE_CONNECTION_STRING of an emulator

A run is begun again after each kill until it is finished, and is then compared with an undisturbed one: weights, optimizer
state and losses, bit for bit. What each attempt goes on from must be the newest checkpoint with a manifest, whatever else the kill
has left. Ends with 1 when anything differs. Kills come soon after an attempt's first steps, so that a run has several. Ranks are forked
after one import of everything, so that most of the time is training; each is a real process, with gloo between two. Attention dropout
makes random numbers matter.
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = {
    "data": {"train_examples": 60, "eval_examples": 4, "max_seq_len": 256},
    "train": {"learning_rate": 0.01, "precision": "fp32"},
    "eval": {"before": False, "every_steps": 9},
    "checkpoint": {"every_steps": 2, "keep": 2},
    "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
}
# Reads one JSON line per attempt {folder, port}, forks the ranks, answers with their pids, then with their exit codes.
FORGE = """
import json, os, signal, sys, time, traceback
import torch, transformers, accelerate, peft, datasets
import workloads.training.accelerate.__main__ as strategy
from workloads.data import jobs_task
from workloads.run import main_guard
from workloads.training.core.main import run_rank
ranks, remote = int(sys.argv[1]), sys.argv[2] == "remote"
if remote:
    import adlfs, azure.identity.aio, azure.storage.blob.aio
print("ready", flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            log = os.open(ask["folder"] + ".log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(log, 1), os.dup2(log, 2)
            if ranks > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
                                  MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ask["port"]))
            sys.argv = ["train", "--run", ask["folder"]]
            code = 1
            try:
                main_guard(lambda: run_rank(strategy.Accelerate))
                code = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        pids.append(pid)
    print(json.dumps(pids), flush=True)
    codes, since = {}, None
    # As a launcher does: when one rank fails, the others are told to end, and killed when they don't.
    while len(codes) < ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()):
            since = since or time.monotonic()
            for other in set(pids) - set(codes):
                os.kill(other, signal.SIGKILL if time.monotonic() - since > 3 else signal.SIGTERM)
        time.sleep(0.02)
    print(json.dumps(list(codes.values())), flush=True)
"""


class Forge:
    """Starts attempts at runs, as processes forked from one that has imported everything."""

    def __init__(self, ranks: int, *, remote: bool) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORGE, str(ranks), "remote" if remote else "here"], env=env, text=True, **pipes
        )
        assert self._answer() == "ready"

    def start(self, folder: Path) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process.stdin.write(json.dumps({"folder": str(folder), "port": port}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def codes(self) -> list[int]:
        """Wait for the attempt's ranks; return their exit codes."""
        return json.loads(self._answer())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> str:
        return self._process.stdout.readline().strip()


def make_model(folder: Path) -> Path:
    """Write a two-layer Llama with seeded weights and the embedded model's tokenizer."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from workloads.data.embedded_model import embedded_model

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    LlamaForCausalLM(LlamaConfig.from_pretrained(embedded_model(), **shape, head_dim=32, attention_dropout=0.1)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_model() / file, folder / file)
    return folder


def prepare(folder: Path, model: Path, args: argparse.Namespace) -> Path:
    """Make a run directory with its spec."""
    from ncdemo.spec import TrainSpec, dump_spec

    folder.mkdir()
    train = {**SPEC["train"], "processes": args.ranks, "max_steps": args.steps}
    whole = {**SPEC, "model": {"name": str(model)}, "train": train, "checkpoint": {**SPEC["checkpoint"], "uri": args.uri}}
    spec = TrainSpec.model_validate_json(json.dumps(whole))
    (folder / "spec.yaml").write_text(dump_spec(spec))
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """Return what a run came to: every byte of its weights and optimizer, every loss."""
    import torch

    from ncdemo.spec import TrainSpec, load_spec
    from workloads.training.core.main import open_store

    store = open_store(load_spec(folder / "spec.yaml", TrainSpec), folder)
    last = store.steps()[0]
    files = store.fetch(last, store.manifest(last))
    optimizer = torch.load(files / "optimizer.pt", weights_only=True)["state"]
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    evals = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    return {
        "last checkpoint": last,
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "optimizer": {f"{i} {k}": v.numpy().tobytes() for i, state in optimizer.items() for k, v in state.items()},
        "losses": [(s["step"], s["loss"], s["grad_norm"]) for s in steps],
        "evaluations": [(e["step"], e["loss"]) for e in evals],
    }


def left(folder: Path) -> tuple[int, int]:
    """Return what a killed attempt left: the step of the newest whole checkpoint (0: none), and how many checkpoints have no manifest."""
    from ncdemo.spec import TrainSpec, load_spec
    from workloads.training.core.main import open_store
    from workloads.training.core.store import MANIFEST, BlobStore, again

    store = open_store(load_spec(folder / "spec.yaml", TrainSpec), folder)
    if isinstance(store, BlobStore):
        names = again(lambda: store._storage.names(folder.name))
        steps = {name.split("/")[0] for name in names}
        torn = sum(f"{step}/{MANIFEST}" not in names for step in steps)
    else:
        torn = sum(1 for part in store.root.glob(".step-*.part") if any(part.rglob("*")))
    return max(store.steps(), default=0), torn


def kill(pids: list[int], folder: Path, longest_s: float, writing_s: float, draw: random.Random) -> str | None:
    """Kill all ranks, or one, at a random moment or while a checkpoint is written; say which, or None if they had ended."""
    until = time.monotonic() + draw.uniform(0.2, longest_s)
    moment = draw.choice(["any moment", "checkpoint"])
    while time.monotonic() < until:
        if moment == "checkpoint" and list((folder / "checkpoints").glob(".step-*.part/*")):
            time.sleep(draw.uniform(0, writing_s))
            break
        time.sleep(0.001)
    chosen = [draw.choice(pids)] if len(pids) > 1 and draw.random() < 0.5 else pids
    states = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] for pid in pids if Path(f"/proc/{pid}").exists()]
    if not states or "Z" in states:
        return None
    for pid in chosen:
        os.kill(pid, signal.SIGKILL)
    return f"{moment}, {'one rank' if len(chosen) < len(pids) else 'all ranks'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=24, help="of one run; a checkpoint every two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--uri", help="where checkpoints go (default: the run directory)")
    args = parser.parse_args()
    draw, forge, begun = random.Random(args.seed), Forge(args.ranks, remote=bool(args.uri)), time.monotonic()
    kinds: dict[str, int] = {}
    runs = torn = resumed = 0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        model = make_model(root / "model")
        writing_s = 1.0 if args.uri else 0.02  # about what a checkpoint takes
        whole = prepare(root / "whole", model, args)
        start = time.monotonic()
        pids = forge.start(whole)
        while Path(f"/proc/{pids[0]}").exists() and not (whole / "steps.jsonl").exists():
            time.sleep(0.01)
        first_s = time.monotonic() - start
        assert set(forge.codes()) == {0}, (root / "whole.log").read_text()[-3000:]
        longest_s = first_s + (time.monotonic() - start - first_s) / 4
        wanted = outcome(whole)
        while sum(kinds.values()) < args.kills:
            runs += 1
            folder = prepare(root / f"run-{runs}", model, args)
            codes: set[int] = set()
            newest = said = 0
            while codes != {0}:
                pids = forge.start(folder)
                kind = kill(pids, folder, longest_s, writing_s, draw) if sum(kinds.values()) < args.kills else None
                if kind:
                    kinds[kind] = kinds.get(kind, 0) + 1
                codes = set(forge.codes())
                log = (root / f"run-{runs}.log").read_text()
                taken = [int(step) for step in re.findall(r"going on from step (\d+)", log[said:])]
                resumed += bool(taken)
                if set(taken) - {newest} or (codes == {0} and newest and not taken):
                    sys.exit(f"run {runs} went on from {taken or 'the start'}; its newest whole checkpoint: {newest}\n{log[-2000:]}")
                said = len(log)
                if codes != {0}:
                    newest, parts = left(folder)
                    torn += bool(parts)
                if 2 in codes or (codes != {0} and kind is None):
                    sys.exit((root / f"run-{runs}.log").read_text()[-3000:])
            found = outcome(folder)
            different = [key for key in wanted if found[key] != wanted[key]]
            if different:
                sys.exit(
                    f"run {runs} differs in {', '.join(different)}; its log ends with:\n{(root / f'run-{runs}.log').read_text()[-2000:]}"
                )
    forge.close()
    counts = ", ".join(f"{n} x {kind}" for kind, n in sorted(kinds.items()))
    print(
        f"{args.ranks} ranks: {sum(kinds.values())} kills ({counts}) over {runs} runs of {args.steps} steps in "
        f"{(time.monotonic() - begun) / 60:.1f} min: all ended bit-identical; {torn} kills left a torn checkpoint, none of {resumed} "
        "resumed attempts took one"
    )


if __name__ == "__main__":
    main()
