"""What a cell asks: prompts, right answers and how to generate, the very same for every engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.traffic import Lengths, Load
from workloads.inference.frameworks.base import Params, Prompt
from workloads.inference.prompts import load_prompts, load_references, prompt_hash


@dataclass(frozen=True)
class Asked:
    prompts: Sequence[Prompt]
    references: Sequence[str | None]
    max_new_tokens: int

    @property
    def hash(self) -> str:
        return prompt_hash(self.prompts)


def asked(spec: BenchSpec, lengths: Lengths | None, tokenizer: Any) -> Asked:
    """Return what the cells of one model and length ask. Raise SpecError for prompts that can't be used."""
    prompts = load_prompts(spec.prompts, tokenizer, spec.max_model_len - spec.sampling.max_new_tokens)
    return Asked(prompts, load_references(spec.prompts), spec.sampling.max_new_tokens)


def params(spec: BenchSpec, load: Load, max_new_tokens: int) -> Params:
    """Return how a cell generates; an open loop has no limit of its own to requests in flight."""
    s = spec.sampling
    return Params(load.concurrency or spec.max_concurrency, max_new_tokens, s.ignore_eos, s.temperature, s.seed)
