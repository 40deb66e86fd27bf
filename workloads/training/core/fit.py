"""The training loop, one for all strategies: data in, steps, evaluation, checkpoints, a result.

Reading order: `fit` is the whole run; step.py is one optimizer step; plan.py says which rows and at which learning rate.
"""

import logging
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import node_count
from ncdemo.spec.result import EvalRecord, TrainResult
from ncdemo.spec.train import Data, Train, TrainSpec
from workloads.data.source import load_dataset
from workloads.data.tokens import TokenExample, cut, tokenize
from workloads.metrics.settle import settle
from workloads.run import Run, progress
from workloads.stop import Interrupted, StopRequest
from workloads.training.core.attention import PACKED
from workloads.training.core.checkpoint import Checkpoints
from workloads.training.core.energy import energy_j
from workloads.training.core.evaluate import evaluate
from workloads.training.core.flops import Utilization
from workloads.training.core.layers import eager
from workloads.training.core.part import Part
from workloads.training.core.plan import make_plan
from workloads.training.core.position import Position, generator_states, load_generators, save_generators
from workloads.training.core.speed import Hardware, check, set_up
from workloads.training.core.step import take_step
from workloads.training.core.strategy import Strategy

log = logging.getLogger("ncdemo.train")


@dataclass(frozen=True)
class Start:
    """Where an attempt begins."""

    position: Position
    checkpoint: Path | None
    """Folder of the checkpoint that the position is from; None at the very beginning."""
    world_size: int
    """Of the ranks that wrote it."""


def fit(
    spec: TrainSpec, folder: Path, run: Run | None, strategy: Strategy, start: Start, checkpoints: Checkpoints, stop: StopRequest
) -> None:
    """Fine-tune as the spec says. `run` is the open run directory on rank 0 and None on every other rank."""
    hardware = Hardware.of(strategy.device, strategy.precision)
    check(spec.train, hardware)
    torch.manual_seed(spec.train.seed)
    tokenizer, model = strategy.load(spec, start.checkpoint)
    dataset = load_dataset(spec.data)
    train_tokens, truncated = _tokens(dataset.train, tokenizer, spec.data)
    held_out, _ = _tokens(dataset.held_out[: spec.data.eval_examples], tokenizer, spec.data)
    asked = [e for e in dataset.held_out if e.text is None][: spec.eval.exact_match_examples]
    if spec.eval.exact_match_examples and not asked:
        raise SpecError("eval.exact_match_examples: this data set has plain text and no answers to compare; set it to 0")
    log.info("data %s: %d training examples (%d cut), %d held out", dataset.record["name"], len(train_tokens), truncated, len(held_out))

    attention = PACKED if spec.data.packing else "sdpa"
    model.train()
    speed, head = set_up(
        spec, model, hardware, patched=strategy.patched, checkpointed=strategy.checkpointed,
        shards=strategy.world_size if strategy.sharded else 1,
    )  # fmt: skip
    model.set_attn_implementation(attention)
    # Now: `setup` may leave each rank with a part of them.
    trainable, parameters = model.num_parameters(only_trainable=True), model.num_parameters()
    utilization = Utilization.of(model, strategy)
    forward = strategy.setup(model, _optimizer(model, spec.train))
    log.info("%d ranks of %s; %s", strategy.world_size, strategy.engine, speed.shown or "nothing of train.speed")
    now = run.now if run else time.perf_counter
    at = start.position
    plan = make_plan(train_tokens, spec, strategy.world_size, at.rows)

    def measure() -> EvalRecord:
        if done := at.evaluated(at.step):
            return done
        # Answers are generated before and after training alone: they cost a hundred times the loss.
        ask = asked if at.step in (0, plan.steps) else []
        with eager(speed.compile):
            record: EvalRecord = evaluate(strategy, held_out, ask, tokenizer, spec.eval, spec.data.max_seq_len, step=at.step, now=now)
        model.set_attn_implementation(attention)
        at.evals.append(record)
        if run:
            run.append("evals.jsonl", record)
            log.info("eval at step %d: loss %.4f, token accuracy %.4f, exact match %s",
                     record.step, record.loss, record.token_accuracy, record.exact_match)  # fmt: skip
        return record

    def total(values: list[int]) -> list[int]:
        return [round(v) for v in strategy.sum(torch.tensor(values, dtype=torch.float64)).tolist()]

    def keep(wait: bool) -> bool:
        """Begin a checkpoint of this moment, and finish it where asked to; say whether all went well."""
        whole = not checkpoints.under_way or checkpoints.finish(total)
        begun = time.perf_counter()
        at.clock_s, at.peak_rss_bytes = now(), _peak_rss_bytes(at.peak_rss_bytes)
        checkpoints.begin(at.step, _writer(spec, strategy, tokenizer, at), beside=not wait)
        log.info("checkpoint of step %d: begun in %.3f s", at.step, time.perf_counter() - begun)
        return checkpoints.finish(total) if wait else whole

    if start.checkpoint:
        _take_up(start, strategy)
    before = measure() if spec.eval.before else None
    with stop.deferred():
        while at.step < plan.steps:
            stepped = take_step(at.step + 1, plan, strategy, forward, tokenizer.pad_token_id, spec, now,
                                lambda: [int(stop.name is not None), *checkpoints.votes()], head)  # fmt: skip
            record, (stops, *votes) = stepped.record, stepped.votes
            share = utilization.share(
                tokens=record.tokens, target_tokens=record.target_tokens, squares=stepped.squares, step_time_s=record.step_time_s
            )
            record = record.model_copy(update={"mfu": share})
            at.step, at.rows = record.step, at.rows + plan.rows_per_step
            at.steps.append(record)
            at.computed_tokens += stepped.computed_tokens
            if run:
                run.append("steps.jsonl", record)
                progress("train", record.step, plan.steps, loss=record.loss, tokens_per_s=record.tokens_per_s)
                log.info("step %d/%d: loss %.4f, lr %.2e, grad norm %.3f, %.0f tokens/s, %.2f s",
                         record.step, plan.steps, record.loss, record.learning_rate, record.grad_norm, record.tokens_per_s, record.step_time_s)  # fmt: skip
            checkpoints.count(*votes)
            if stops:
                # Every rank sees the sum of the same step, so all of them stop here.
                whole = keep(wait=True)
                raise Interrupted(
                    f"{stop.name or 'another rank'}; {'goes on from' if whole else 'no checkpoint could be written at'} step {at.step}"
                )
            if at.step < plan.steps and spec.eval.every_steps and at.step % spec.eval.every_steps == 0:
                measure()
            if spec.checkpoint.every_steps and (at.step % spec.checkpoint.every_steps == 0 or at.step == plan.steps):
                keep(wait=not spec.checkpoint.asynchronous)
    if checkpoints.under_way or spec.checkpoint.every_steps:
        # The long evaluation comes next: a run that is stopped there has nothing to repeat but that.
        checkpoints.finish(total)
    after = measure()
    strategy.save(tokenizer, folder)
    peak_rss_bytes = _largest(strategy, _peak_rss_bytes(at.peak_rss_bytes))
    peak_vram_bytes = _largest(strategy, torch.cuda.max_memory_allocated() if strategy.device.type == "cuda" else None)
    if run is None:
        return
    rates = [s.tokens_per_s for s in at.steps]
    shares = [s.mfu for s in at.steps[1:] or at.steps if s.mfu is not None]
    alone, hz = node_count(os.environ) == 1, spec.telemetry.sample_hz
    if alone and hz:
        settle(folder / "samples.jsonl", at.steps[-1].end_s, 1 / hz)
    run.train = TrainResult(
        steps=len(at.steps),
        examples=sum(s.examples for s in at.steps),
        tokens=sum(s.tokens for s in at.steps),
        target_tokens=sum(s.target_tokens for s in at.steps),
        train_time_s=sum(s.step_time_s for s in at.steps),
        tokens_per_s=statistics.median(rates[1:] or rates),
        mfu=statistics.median(shares) if shares else None,
        peak_rss_bytes=peak_rss_bytes,
        peak_vram_bytes=peak_vram_bytes,
        energy_j=energy_j(folder / "samples.jsonl", at.steps) if alone else None,
        world_size=strategy.world_size,
        engine=strategy.engine,
        precision=strategy.precision,
        speed=speed,
        trainable_parameters=trainable,
        parameters=parameters,
        padding_fraction=1 - sum(s.tokens for s in at.steps) / at.computed_tokens,
        truncated_examples=truncated,
        before=before,
        after=after,
        model_dir="model",
        dataset=dataset.record,
    )


def _writer(spec: TrainSpec, strategy: Strategy, tokenizer: Any, at: Position) -> Callable[[Part], None]:
    """Begin to copy what resume needs of this rank; return what writes it."""
    write, rank, world_size = strategy.snapshot(), strategy.rank, strategy.world_size
    generators, frozen = generator_states(), replace(at, steps=list(at.steps), evals=list(at.evals))

    def write_all(part: Part) -> None:
        write(part)
        save_generators(generators, part, rank)
        if rank == 0:
            tokenizer.save_pretrained(part.folder)
            frozen.write(part.folder, spec, world_size)

    return write_all


def _take_up(start: Start, strategy: Strategy) -> None:
    """Bring optimizer and random numbers to where the checkpoint was taken."""
    assert start.checkpoint
    strategy.restore(start.checkpoint)
    log.info("going on from step %d (%s)", start.position.step, start.checkpoint)
    if not load_generators(start.checkpoint, strategy.rank) or start.world_size != strategy.world_size:
        log.warning(
            "the checkpoint was written by %d ranks, and %d run now: the same rows follow, but not bit for bit the same numbers",
            start.world_size,
            strategy.world_size,
        )


def _optimizer(model: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=train.learning_rate, betas=(0.9, 0.99), fused=train.speed.fused_adamw)


def _tokens(examples: list[Any], tokenizer: Any, data: Data) -> tuple[list[TokenExample], int]:
    """Tokenise and cut; return the examples that still have a target, and how many were cut or dropped."""
    whole = [tokenize(e, tokenizer) for e in examples]
    short = [cut(e, data.max_seq_len) for e in whole]
    kept = [e for e in short if e is not None]
    if not kept:
        raise SpecError(f"data.max_seq_len = {data.max_seq_len}: no example of {data.name} has an answer within it; raise it")
    return kept, sum(len(e.ids) > data.max_seq_len for e in whole)


def _largest(strategy: Strategy, value: int | None) -> int | None:
    """Return the largest of all ranks' values; all ranks must call this."""
    each = torch.zeros(strategy.world_size, dtype=torch.float64)
    each[strategy.rank] = value or 0
    return round(strategy.sum(each).max().item()) or None


def _peak_rss_bytes(before: int | None) -> int | None:
    """Return the largest resident memory of this process or of an attempt before it.

    Linux's VmHWM; getrusage's figure is inherited from the parent.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return before
    own = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    return max(own, before or 0)
