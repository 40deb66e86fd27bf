"""What a cell asks: prompts, right answers, how much to generate and, for a trace, when; the very same for every engine."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec, Prompts
from ncdemo.spec.result_bench import PromptRows
from ncdemo.spec.sweep import PlannedCell, requests, settings
from ncdemo.spec.traces import replayed
from ncdemo.spec.traffic import Load, Trace
from workloads.inference.frameworks.base import Params, Prompt
from workloads.inference.load.synthesize import synthesize, synthesize_shared
from workloads.inference.prompts import Loaded, UnusableRow, load_prompts, prompt_hash

log = logging.getLogger("ncdemo.bench")
OWN_TOKENS = 64
"""Prompts of a file that are alike for longer share more than a chat template: a prefix cache would answer a part of them. Our choice."""


@dataclass(frozen=True)
class Asked:
    """Sequences have one entry per request."""

    prompts: Sequence[Prompt]
    references: Sequence[str | None]
    output_tokens: Sequence[int]
    """Of each request, at most (exactly, with ignore_eos)."""
    offsets_s: Sequence[float] | None = None
    """When a trace sent them; None: the load says when."""
    rows: PromptRows | None = None
    """Of a file of prompts: how many were used and skipped."""
    warm_up: Sequence[Prompt] | None = None
    """What nothing else asks (None: a warm-up asks the first of the prompts)."""
    distinct: bool = False
    """No other cell's prompts are these, nor do two of them begin alike, but in a trace that is to find shared beginnings again."""

    @property
    def hash(self) -> str:
        return prompt_hash(self.prompts)

    @property
    def max_new_tokens(self) -> int:
        return max(self.output_tokens)

    @property
    def shown_tokens(self) -> str:
        return str(self.max_new_tokens) if self.offsets_s is None else "the trace's own"

    def first(self, count: int) -> "Asked":
        """Return the first requests alone, as of a shorter cell."""
        offsets = None if self.offsets_s is None else self.offsets_s[:count]
        return replace(
            self, prompts=self.prompts[:count], references=self.references[:count], output_tokens=self.output_tokens[:count], offsets_s=offsets
        )  # fmt: skip

    def before(self, count: int) -> "Asked":
        """Return the requests of a warm-up."""
        if self.warm_up is None:
            return self.first(count)
        outputs = [self.output_tokens[min(i, len(self.output_tokens) - 1)] for i in range(len(self.warm_up))]
        return replace(self, prompts=self.warm_up, references=[None] * len(outputs), output_tokens=outputs, offsets_s=None)


def asked(spec: BenchSpec, cell: PlannedCell, tokenizer: Any) -> Asked:
    """Return what a cell asks of any engine with this model. Raise SpecError for prompts that can't be used."""
    if cell.load.kind == "trace":
        assert spec.trace
        return _replayed(spec, spec.trace, cell, tokenizer)
    count = requests(spec, cell)
    if cell.lengths:
        n, chat = cell.lengths.input_tokens, spec.endpoint == "chat"
        made = [m.prompt for m in synthesize(tokenizer, [n] * count, _seed(spec, cell), chat=chat)]
        what = Asked(made, [None] * count, [cell.lengths.output_tokens] * count, distinct=spec.distinct_prompts)
        return _warm(spec, what, [m.prompt for m in synthesize(tokenizer, [n] * spec.warmup_requests, _seed(spec, None), chat=chat)])
    room = spec.max_model_len - spec.sampling.max_new_tokens
    if spec.distinct_prompts and (window := _window(spec, cell, tokenizer, room)):
        return window
    loaded = load_prompts(spec.prompts.model_copy(update={"count": count}), tokenizer, room)
    return Asked(loaded.prompts, loaded.references, [spec.sampling.max_new_tokens] * count, rows=loaded.rows)


def _window(spec: BenchSpec, cell: PlannedCell, tokenizer: Any, room: int) -> Asked | None:
    """Return the rows of the file that are this cell's alone; None where there are too few, and the spec doesn't insist."""
    count, warm = spec.prompts.count, spec.warmup_requests
    if cell.load.search:  # nobody knows how many rates it tries
        return None
    known = [setting for setting in settings(spec) if not setting.startswith("trace")]
    total = warm + count * len(known) * spec.repeats
    try:
        found = _different(spec.prompts, total, tokenizer, room)
    except UnusableRow:  # one that would not have been looked at
        if spec.prompts.distinct:
            raise
        return None
    if len(found.prompts) < total:
        if spec.prompts.distinct:
            raise SpecError(
                f"prompts.distinct: {spec.prompts.file} has {len(found.prompts)} prompts that differ within {OWN_TOKENS} tokens, and "
                f"{total} are asked for ({len(known)} loads x {spec.repeats} repeats x {count}, and {warm} of the warm-up); "
                "give a longer file, a lower prompts.count, or lengths"
            )
        return None
    start = warm + count * (cell.repeat * len(known) + known.index(cell.setting))
    mine, references = found.prompts[start : start + count], found.references[start : start + count]
    rows = found.rows.model_copy(update={"used": count})
    renumbered = [replace(prompt, index=i) for i, prompt in enumerate(mine)]
    what = Asked(renumbered, references, [spec.sampling.max_new_tokens] * count, rows=rows, distinct=True)
    return _warm(spec, what, found.prompts[:warm])


@lru_cache(maxsize=2)
def _different(prompts: Prompts, wanted: int, tokenizer: Any, room: int) -> Loaded:
    """Return the first rows that differ within OWN_TOKENS, as many as are wanted or there are; read once for all cells."""
    read = max(wanted, 1)
    while True:
        loaded = load_prompts(prompts.model_copy(update={"count": read}), tokenizer, room)
        first = {p.token_ids[:OWN_TOKENS]: i for i, p in reversed(list(enumerate(loaded.prompts)))}
        if len(first) >= wanted or loaded.rows.used < read:
            break
        read *= 2
    kept = sorted(first.values())[:wanted]
    return Loaded([loaded.prompts[i] for i in kept], [loaded.references[i] for i in kept], loaded.rows)


def _warm(spec: BenchSpec, what: Asked, others: Sequence[Prompt]) -> Asked:
    return replace(what, warm_up=others) if spec.distinct_prompts else what


def _seed(spec: BenchSpec, cell: PlannedCell | None) -> int | str:
    """Return the seed of a cell's prompts, or of its warm-up's: for each other prompts where they are to be distinct."""
    if not spec.distinct_prompts:
        return spec.sampling.seed
    return f"{spec.sampling.seed} {f'{cell.setting} repeat {cell.repeat}' if cell else 'warm-up'}"


def params(spec: BenchSpec, load: Load, max_new_tokens: int, repeat: int = 0) -> Params:
    """Return how a cell generates; an open loop has no limit of its own to requests in flight."""
    s = spec.sampling
    return Params(load.concurrency or spec.max_concurrency, max_new_tokens, s.ignore_eos, s.temperature, s.seed, arrival_seed(spec, repeat))


def arrival_seed(spec: BenchSpec, repeat: int) -> int:
    """Return the seed of a repeat's random gaps: alike for every engine, another for each repeat, as one draw is not all traffic."""
    return spec.sampling.seed + repeat


def requests_of(spec: BenchSpec, cell: PlannedCell) -> int:
    """Return how many requests a cell has: of a trace its rows that fit, up to prompts.count."""
    if cell.load.kind == "trace" and spec.trace:
        return len(replayed(spec.trace.file, spec.max_model_len, spec.prompts.count)[0])
    return requests(spec, cell)


def _replayed(spec: BenchSpec, trace: Trace, cell: PlannedCell, tokenizer: Any) -> Asked:
    """Return the trace's first prompts.count requests that fit the model."""
    rows, whole = replayed(trace.file, spec.max_model_len, spec.prompts.count)
    if left_out := sum(row.offset_s <= rows[-1].offset_s for row in whole) - len(rows):
        log.warning("%s: %d of its first %d requests don't fit in max_model_len = %d and are left out: it is sent thinned by so much",
                    trace.file, left_out, left_out + len(rows), spec.max_model_len)  # fmt: skip
    lengths, chat = [row.prompt_tokens for row in rows], spec.endpoint == "chat"
    shared = any(row.block_ids for row in rows)
    made = synthesize_shared(tokenizer, rows, _seed(spec, cell)) if shared else synthesize(tokenizer, lengths, _seed(spec, cell), chat=chat)
    what = Asked([m.prompt for m in made], [None] * len(rows), [row.output_tokens for row in rows], [row.offset_s for row in rows],
                 distinct=spec.distinct_prompts and (spec.prefix_cache or not shared))  # fmt: skip
    return _warm(spec, what, [m.prompt for m in synthesize(tokenizer, lengths[: spec.warmup_requests], _seed(spec, None), chat=chat)])
