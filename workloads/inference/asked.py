"""What a cell asks: prompts, right answers, how much to generate and, for a trace, when; the very same for every engine."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.result_bench import PromptRows
from ncdemo.spec.sweep import PlannedCell, requests
from ncdemo.spec.traces import replayed
from ncdemo.spec.traffic import Load, Trace
from workloads.inference.frameworks.base import Params, Prompt
from workloads.inference.load.synthesize import synthesize, synthesize_shared
from workloads.inference.prompts import load_prompts, prompt_hash

log = logging.getLogger("ncdemo.bench")


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
        """Return the first requests alone, as of a warm-up or a shorter cell."""
        offsets = None if self.offsets_s is None else self.offsets_s[:count]
        return replace(
            self, prompts=self.prompts[:count], references=self.references[:count], output_tokens=self.output_tokens[:count], offsets_s=offsets
        )  # fmt: skip


def asked(spec: BenchSpec, cell: PlannedCell, tokenizer: Any) -> Asked:
    """Return what a cell asks of any engine with this model. Raise SpecError for prompts that can't be used."""
    if cell.load.kind == "trace":
        assert spec.trace
        return _replayed(spec, spec.trace, tokenizer)
    count = requests(spec, cell)
    if cell.lengths:
        made = synthesize(tokenizer, [cell.lengths.input_tokens] * count, spec.sampling.seed, chat=spec.endpoint == "chat")
        return Asked([m.prompt for m in made], [None] * count, [cell.lengths.output_tokens] * count)
    loaded = load_prompts(spec.prompts.model_copy(update={"count": count}), tokenizer, spec.max_model_len - spec.sampling.max_new_tokens)
    return Asked(loaded.prompts, loaded.references, [spec.sampling.max_new_tokens] * count, rows=loaded.rows)


def params(spec: BenchSpec, load: Load, max_new_tokens: int) -> Params:
    """Return how a cell generates; an open loop has no limit of its own to requests in flight."""
    s = spec.sampling
    return Params(load.concurrency or spec.max_concurrency, max_new_tokens, s.ignore_eos, s.temperature, s.seed)


def requests_of(spec: BenchSpec, cell: PlannedCell) -> int:
    """Return how many requests a cell has: of a trace its rows that fit, up to prompts.count."""
    if cell.load.kind == "trace" and spec.trace:
        return len(replayed(spec.trace.file, spec.max_model_len, spec.prompts.count)[0])
    return requests(spec, cell)


def _replayed(spec: BenchSpec, trace: Trace, tokenizer: Any) -> Asked:
    """Return the trace's first prompts.count requests that fit the model."""
    rows, whole = replayed(trace.file, spec.max_model_len, spec.prompts.count)
    if left_out := sum(row.offset_s <= rows[-1].offset_s for row in whole) - len(rows):
        log.warning("%s: %d of its first %d requests don't fit in max_model_len = %d and are left out: it is sent thinned by so much",
                    trace.file, left_out, left_out + len(rows), spec.max_model_len)  # fmt: skip
    if any(row.block_ids for row in rows):
        made = synthesize_shared(tokenizer, rows, spec.sampling.seed)
    else:
        made = synthesize(tokenizer, [row.prompt_tokens for row in rows], spec.sampling.seed, chat=spec.endpoint == "chat")
    return Asked([m.prompt for m in made], [None] * len(rows), [row.output_tokens for row in rows], [row.offset_s for row in rows])
