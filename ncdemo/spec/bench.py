"""BenchSpec: one inference benchmark, a sweep over engines, models and concurrency on the same prompts."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.common import ModelRef, Name, NonEmpty, PositiveInt, Precision, Seed, Telemetry

Engine = Literal["transformers", "vllm", "sglang", "lmdeploy", "tensorrt_llm", "openai", "echo"]


def _distinct(values: tuple) -> tuple:
    if len(set(values)) != len(values):
        raise ValueError("names a value twice; list each once")
    return values


class Prompts(Spec):
    """What is asked."""

    file: NonEmpty = "prompts/jobs.jsonl"
    """JSON Lines with `prompt` (text) or `messages`; a path from the working directory, else from the ncdemo checkout."""
    count: PositiveInt = 16
    """Requests per cell; the file is repeated when it is shorter."""


class Sampling(Spec):
    """How every engine generates. Equal output lengths keep the comparison fair."""

    max_new_tokens: PositiveInt = 64
    """Output tokens of each request, at most (exactly, with ignore_eos)."""
    ignore_eos: bool = True
    """True: every request yields exactly max_new_tokens, whatever the model would like."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """0 is greedy."""
    seed: Seed = 0
    """Used when the temperature is above 0."""


class Slo(Spec):
    """Service level objective of one request (default: MLPerf Llama-3.1-8B, conversational)."""

    ttft_s: float = Field(default=2.0, gt=0)
    """Longest time to the first token, seconds."""
    tpot_s: float = Field(default=0.1, gt=0)
    """Longest time per output token after the first, seconds."""


class BenchSpec(Spec):
    """One inference benchmark: every engine x model x concurrency is a cell, each measured `repeats` times."""

    kind: Literal["bench"] = "bench"
    """Says that this file is a benchmark."""
    name: Name = "bench"
    """Begins the run directory's name."""
    models: Annotated[tuple[ModelRef, ...], Field(min_length=1), AfterValidator(_distinct)] = (ModelRef(),)
    """Measured one after the other."""
    engines: Annotated[tuple[Engine, ...], Field(min_length=1), AfterValidator(_distinct)] = ("transformers",)
    """Loaded side by side and measured in turn."""
    concurrency: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_distinct)] = (8,)
    """Requests in flight at once (closed loop)."""
    prompts: Prompts = Prompts()
    """The same for every cell."""
    sampling: Sampling = Sampling()
    """How engines generate."""
    slo: Slo = Slo()
    """What a good answer's latency is."""
    repeats: PositiveInt = 1
    """Measurements of each cell, interleaved so that drift hits all engines alike."""
    warmup_requests: int = Field(default=2, ge=0)
    """Requests before the first measurement of each engine, thrown away."""
    precision: Precision = "auto"
    """`auto`: bf16 on a GPU, fp32 on a CPU."""
    max_model_len: int = Field(default=2048, ge=16)
    """Prompt and output tokens of one request, at most; the same for every engine."""
    memory_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Share of the GPU's memory each engine may take; engines are resident side by side."""
    telemetry: Telemetry = Telemetry()
    """What is sampled and logged beside it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sampling.max_new_tokens >= self.max_model_len:
            raise ValueError("sampling.max_new_tokens leaves no room for a prompt in max_model_len; lower one or raise the other")
        return self
