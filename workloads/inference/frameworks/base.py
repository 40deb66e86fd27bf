"""What goes into an engine and what comes out: raw facts. metrics.py alone turns them into metrics."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """How a model is loaded, the same for every engine of a benchmark."""

    precision: Literal["fp32", "bf16"]
    max_model_len: int
    memory_fraction: float
    """Share of the GPU's memory; without a GPU no engine uses it."""
    max_concurrency: int


@dataclass(frozen=True)
class Prompt:
    index: int
    token_ids: tuple[int, ...]
    """The very ids every engine must be given."""


@dataclass(frozen=True)
class Params:
    """How a cell generates."""

    concurrency: int
    max_new_tokens: int
    ignore_eos: bool
    temperature: float
    seed: int


@dataclass
class Answer:
    """One request's facts. Stamps are time.perf_counter_ns."""

    index: int
    scheduled_ns: int
    sent_ns: int
    chunk_ns: list[int] = field(default_factory=list)
    """When each chunk with tokens was there."""
    chunk_tokens: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    error: str | None = None
    """Why there is no full answer, in a sentence."""
    failure: str | None = None
    """The same as one of workloads.inference.load.failures; None for engines in this process."""
    text: str | None = None
    """What a server answered; engines in this process give token_ids."""
    output_tokens: int | None = None
    """As the server counted them (usage)."""
    prompt_tokens: int | None = None
    """As the server counted them (usage)."""
    chunk_tokens_from: Literal["engine", "token_ids", "usage", "one_each", "unknown"] = "engine"
    """How chunk_tokens is known: from the engine, from token ids or a running usage in each chunk, from a final usage that equals
    the number of chunks; `one_each` when the server counts nothing, `unknown` when its count is another: then each is 1, and
    gaps between tokens can't be known."""
    finish_reason: str | None = None
    http_status: int | None = None
