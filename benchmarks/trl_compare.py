"""Ours against TRL's SFTTrainer: tokens that carry loss per second, and peak memory, of the same fine-tuning.

Same in all: the embedded model in fp32, the same shipped examples cut alike, answers alone carry loss, torch's fused AdamW,
gradient clipping at 1, threads, machine; no activation checkpointing (TRL's default recomputes: off, in favour of its speed).
Every side runs in a process of its own, in turn (A B C, C B A, ...), and its first step is left out.

    ours         a row of --tokens, packed; each example attends to itself alone
    trl          TRL's default: examples padded to the longest of the batch; as many examples as a packed row holds on average
    trl-packed   TRL's packing (bfd) into a row of --tokens; without flash attention, examples see each other there

A token that counts is a target that isn't padding. peak_rss is VmHWM of the whole process, loading included; ours also
evaluates and saves, TRL only trains.

    make bench-trl        # about ten minutes on two cores
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=6, help="steps that count, after one that warms up")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--tokens", type=int, default=1024, help="tokens in a packed row")
parser.add_argument("--side", choices=["ours", "trl", "trl-packed"], help="run this one alone and print its figures as JSON")
args = parser.parse_args()
SIDES = ("ours", "trl", "trl-packed")


def spec() -> Any:
    from ncdemo.spec import TrainSpec

    return TrainSpec.model_validate(
        {
            "model": {},
            "data": {"max_seq_len": args.tokens, "eval_examples": 4},
            "train": {"max_steps": args.steps + 1, "precision": "fp32", "learning_rate": 1e-5, "schedule": "constant", "warmup_ratio": 0.0},
            "eval": {"before": False},
            "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
        }
    )


def ours(folder: Path) -> dict[str, Any]:
    from ncdemo.spec import dump_spec
    from workloads.training.accelerate.__main__ import Accelerate
    from workloads.training.core.main import run_rank

    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec()))
    sys.argv = ["ours", "--run", str(folder)]
    run_rank(Accelerate)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()][1:]
    return {"targets": sum(s["target_tokens"] for s in steps), "seconds": sum(s["step_time_s"] for s in steps)}


class PlainLoss:
    """What TRL's loss kernel computes, in plain torch: it is written in Triton and doesn't run on a CPU.

    On the targets' positions alone, as the kernel does, and without the entropy that TRL also logs: in TRL's favour.
    """

    @staticmethod
    def apply(hidden: Any, weight: Any, bias: Any, labels: Any, *_: Any) -> tuple[Any, ...]:
        from torch.nn.functional import cross_entropy, linear

        logits = linear(hidden, weight, bias).float()
        log_probs = -cross_entropy(logits, labels, reduction="none")
        return log_probs, log_probs.detach() * 0, None, None, logits.argmax(-1) == labels


def trl(folder: Path, *, packed: bool) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer import utils

    from workloads.data.embedded_model import embedded_model
    from workloads.data.source import load_dataset
    from workloads.data.tokens import cut, tokenize

    utils._ChunkedLogProbFunction = utils._ChunkedLogProbFunction or PlainLoss
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    examples = [e for e in (cut(tokenize(e, tokenizer), args.tokens) for e in load_dataset(spec().data).train) if e]
    per_row = round(args.tokens / statistics.mean(len(e.ids) for e in examples))
    rows = [{"input_ids": e.ids, "labels": [i if t else -100 for i, t in zip(e.ids, e.is_target, strict=True)]} for e in examples]
    config = SFTConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        packing=packed,
        max_length=args.tokens,
        per_device_train_batch_size=1 if packed else per_row,
        gradient_checkpointing=False,
        max_steps=args.steps + 1,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    targets: list[int] = []
    stamps: list[int] = []

    class Stamp(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter_ns())

    trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Stamp()])
    collate = trainer.data_collator

    def counted(batch: list[Any]) -> Any:
        out = collate(batch)
        targets.append(int((out["labels"][:, 1:] != -100).sum()))
        return out

    trainer.data_collator = counted
    trainer.train()
    assert len(stamps) == args.steps + 1, stamps
    # The loader reads ahead, so the counts may be longer than the steps; they come in the steps' order.
    return {"targets": sum(targets[1 : args.steps + 1]), "seconds": (stamps[-1] - stamps[0]) / 1e9, "per_row": per_row}


def peak_rss_bytes() -> int:
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))


def alone(side: str) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--steps", str(args.steps), "--tokens", str(args.tokens)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if args.side:
    with tempfile.TemporaryDirectory() as temporary:
        figures = ours(Path(temporary) / "run") if args.side == "ours" else trl(Path(temporary), packed=args.side == "trl-packed")
    print(json.dumps({**figures, "peak_rss_bytes": peak_rss_bytes()}))
    sys.exit()

results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
for number in range(args.rounds):
    for side in SIDES if number % 2 == 0 else SIDES[::-1]:  # so that a drift of the machine favours none
        results[side].append(alone(side))
        one = results[side][-1]
        print(f"round {number + 1}, {side}: {one['targets'] / one['seconds']:.1f} target tokens/s, "
              f"{one['peak_rss_bytes'] / 2**30:.2f} GiB", file=sys.stderr, flush=True)  # fmt: skip
rates = {side: [r["targets"] / r["seconds"] for r in runs] for side, runs in results.items()}
print(f"{args.steps} steps, {args.rounds} rounds, fp32; rows of {args.tokens} tokens, or {results['trl'][0]['per_row']} padded examples")
for side in SIDES:
    ratios = [a / b for a, b in zip(rates["ours"], rates[side], strict=True)]
    memory = max(r["peak_rss_bytes"] for r in results[side]) / 2**30
    print(f"{side:10}  {statistics.median(rates[side]):7.1f} target tokens/s   peak {memory:5.2f} GiB   "
          f"ours / this: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip
