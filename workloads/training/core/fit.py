"""The training loop, one for all strategies: data in, steps, evaluation, checkpoints, a result.

Reading order: `fit` is the whole run; `_step` is one optimizer step; `schedule` the learning rate.
"""

import logging
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.result import EvalRecord, StepRecord, TrainResult
from ncdemo.spec.train import Data, Train, TrainSpec
from workloads.data.packing import Batch, epoch_rows, pack, pad
from workloads.data.source import load_dataset
from workloads.data.tokens import TokenExample, cut, tokenize
from workloads.run import Run, progress
from workloads.training.core.attention import PACKED
from workloads.training.core.evaluate import evaluate
from workloads.training.core.loss import loss_sum
from workloads.training.core.model import load_model
from workloads.training.core.strategy import Strategy, save_model

log = logging.getLogger("ncdemo.train")


def fit(spec: TrainSpec, run: Run | None, strategy: Strategy) -> None:
    """Fine-tune as the spec says. `run` is the open run directory on rank 0 and None on every other rank."""
    torch.manual_seed(spec.train.seed)
    tokenizer, model = load_model(spec)
    dataset = load_dataset(spec.data)
    train_tokens, truncated = _tokens(dataset.train, tokenizer, spec.data)
    held_out, _ = _tokens(dataset.held_out[: spec.data.eval_examples], tokenizer, spec.data)
    asked = [e for e in dataset.held_out if e.text is None][: spec.eval.exact_match_examples]
    if spec.eval.exact_match_examples and not asked:
        raise SpecError("eval.exact_match_examples: this data set has plain text and no answers to compare; set it to 0")
    log.info("data %s: %d training examples (%d cut), %d held out", dataset.record["name"], len(train_tokens), truncated, len(held_out))

    model.train()
    model.set_attn_implementation(PACKED if spec.data.packing else "sdpa")
    forward = strategy.setup(model, _optimizer(model, spec.train))
    plan = _plan(train_tokens, spec, strategy.world_size)
    now = run.now if run else time.perf_counter

    def measure(step: int) -> EvalRecord:
        # Answers are generated before and after training alone: they cost a hundred times the loss.
        ask = asked if step in (0, plan.steps) else []
        record = evaluate(strategy, held_out, ask, tokenizer, spec.eval, spec.data.max_seq_len, step=step, now=now)
        model.set_attn_implementation(PACKED if spec.data.packing else "sdpa")
        if run:
            run.append("evals.jsonl", record)
            log.info(
                "eval at step %d: loss %.4f, token accuracy %.4f, exact match %s",
                step,
                record.loss,
                record.token_accuracy,
                record.exact_match,
            )
        return record

    before = measure(0) if spec.eval.before else None
    steps: list[StepRecord] = []
    padding = computed = 0
    for number in range(1, plan.steps + 1):
        start = time.perf_counter()
        record, batches = _step(number, plan, strategy, forward, tokenizer.pad_token_id, spec, start, now)
        steps.append(record)
        computed += sum(b.input_ids.numel() for b in batches)
        padding += sum(b.input_ids.numel() - b.tokens for b in batches)
        if run:
            run.append("steps.jsonl", record)
            progress("train", number, plan.steps, loss=record.loss, tokens_per_s=record.tokens_per_s)
            log.info("step %d/%d: loss %.4f, lr %.2e, grad norm %.3f, %.0f tokens/s, %.2f s",
                     number, plan.steps, record.loss, record.learning_rate, record.grad_norm, record.tokens_per_s, record.step_time_s)  # fmt: skip
        if number < plan.steps and spec.eval.every_steps and number % spec.eval.every_steps == 0:
            measure(number)
        if run and spec.checkpoint.every_steps and number % spec.checkpoint.every_steps == 0:
            _checkpoint(run, strategy.unwrapped(), tokenizer, number, spec.checkpoint.keep)
    after = measure(plan.steps)
    totals = strategy.sum(torch.tensor([padding, computed], dtype=torch.float64)).tolist()
    if run is None:
        return
    _save_final(run, strategy.unwrapped(), tokenizer, spec.train.method)
    rates = [s.tokens_per_s for s in steps]
    run.train = TrainResult(
        steps=len(steps),
        examples=sum(s.examples for s in steps),
        tokens=sum(s.tokens for s in steps),
        target_tokens=sum(s.target_tokens for s in steps),
        train_time_s=sum(s.step_time_s for s in steps),
        tokens_per_s=statistics.median(rates[1:] or rates),
        peak_rss_bytes=_peak_rss_bytes(),
        peak_vram_bytes=torch.cuda.max_memory_allocated() if strategy.device.type == "cuda" else None,
        world_size=strategy.world_size,
        precision=strategy.precision,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        parameters=sum(p.numel() for p in model.parameters()),
        padding_fraction=totals[0] / totals[1],
        truncated_examples=truncated,
        before=before,
        after=after,
        model_dir="model",
        dataset=dataset.record,
    )


@dataclass(frozen=True)
class Plan:
    """Which rows each step computes; every rank makes the same plan, so none has to ask."""

    steps: int
    rows: Iterator[list[TokenExample]]
    """Without end, epoch after epoch."""


def _plan(examples: list[TokenExample], spec: TrainSpec, world_size: int) -> Plan:
    lengths = [len(e.ids) for e in examples]
    data, train = spec.data, spec.train
    rows_per_step = world_size * train.grad_accum_steps * train.micro_batch_size
    steps = train.max_steps
    if steps is None:
        first_epoch = pack_count(lengths, data)
        steps = max(1, math.ceil((train.epochs or 1.0) * first_epoch / rows_per_step))
    rows = ([examples[i] for i in row] for row in epoch_rows(lengths, data.max_seq_len, data.packing, data.seed))
    return Plan(steps, rows)


def pack_count(lengths: list[int], data: Data) -> int:
    """Return the number of rows in one epoch."""
    seen, count = 0, 0
    for row in epoch_rows(lengths, data.max_seq_len, data.packing, data.seed):
        seen, count = seen + len(row), count + 1
        if seen >= len(lengths):
            break
    return count


def _step(number: int, plan: Plan, strategy: Strategy, forward: Any, pad_id: int, spec: TrainSpec, start: float,
          now: Callable[[], float]) -> tuple[StepRecord, list[Batch]]:  # fmt: skip
    """Take one optimizer step; return its record (sums over all ranks) and this rank's batches."""
    train = spec.train
    micro = [list(islice(plan.rows, train.micro_batch_size)) for _ in range(train.grad_accum_steps * strategy.world_size)]
    # Every rank sees the whole step, so the mean over all its targets needs no communication.
    everyone = [[e for row in rows for e in row] for rows in micro]
    targets = sum(sum(e.is_target[1:]) for examples in everyone for e in examples)
    batches = [pack(e) if spec.data.packing else pad(e, pad_id) for e in everyone[strategy.rank :: strategy.world_size]]
    total = torch.zeros(1, dtype=torch.float64)
    for i, batch in enumerate(batches):
        with strategy.autocast():
            nll = loss_sum(forward, batch, strategy.device)
        # Gradients are averaged over ranks, hence the world size.
        strategy.backward(nll * (strategy.world_size / targets), last=i == len(batches) - 1)
        total += nll.detach().double().cpu()
    learning_rate = schedule(number - 1, plan.steps, train)
    grad_norm = strategy.step(learning_rate, train.max_grad_norm)
    loss = strategy.sum(total).item() / targets
    elapsed = time.perf_counter() - start
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise SpecError(
            f"train.learning_rate = {train.learning_rate}: loss {loss} and gradient norm {grad_norm} at step {number}; lower it, or use precision fp32"
        )
    tokens = sum(len(e.ids) for examples in everyone for e in examples)
    record = StepRecord(
        step=number, end_s=now(), step_time_s=elapsed, loss=loss, learning_rate=learning_rate, grad_norm=grad_norm, tokens=tokens,
        target_tokens=targets, examples=sum(map(len, everyone)), tokens_per_s=tokens / elapsed,
    )  # fmt: skip
    return record, batches


def schedule(done: int, steps: int, train: Train) -> float:
    """Return the learning rate of the step after `done` steps: linear warm-up, then cosine or linear to 0, or constant."""
    warmup = math.ceil(train.warmup_ratio * steps)
    if done < warmup:
        return train.learning_rate * (done + 1) / warmup
    left = 1 - (done - warmup) / max(1, steps - warmup)
    shape = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}
    return train.learning_rate * shape[train.schedule]


def _optimizer(model: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=train.learning_rate, betas=(0.9, 0.99), fused=True)


def _tokens(examples: list[Any], tokenizer: Any, data: Data) -> tuple[list[TokenExample], int]:
    """Tokenise and cut; return the examples that still have a target, and how many were cut or dropped."""
    whole = [tokenize(e, tokenizer) for e in examples]
    short = [cut(e, data.max_seq_len) for e in whole]
    kept = [e for e in short if e is not None]
    if not kept:
        raise SpecError(f"data.max_seq_len = {data.max_seq_len}: no example of {data.name} has an answer within it; raise it")
    return kept, sum(len(e.ids) > data.max_seq_len for e in whole)


def _peak_rss_bytes() -> int | None:
    """Return the largest resident memory of this process (Linux's VmHWM; getrusage's figure is inherited from the parent)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _checkpoint(run: Run, model: Any, tokenizer: Any, step: int, keep: int) -> None:
    folder = run.folder / "checkpoints"
    folder.mkdir(exist_ok=True)
    save_model(model, tokenizer, folder / f"step-{step:08d}")
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def _save_final(run: Run, model: Any, tokenizer: Any, method: str) -> None:
    """Write model/; for LoRA also adapter/, and model/ is base and adapter merged, which every engine loads."""
    if method == "lora":
        save_model(model, tokenizer, run.folder / "adapter")
        model = model.merge_and_unload()
    save_model(model, tokenizer, run.folder / "model")
