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
