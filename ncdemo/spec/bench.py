"""BenchSpec: one inference benchmark, a sweep over engines, models, number formats, loads and lengths on the same prompts."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.common import ModelRef, Name, NonEmpty, PositiveInt, Precision, Prices, Seed, Telemetry
from ncdemo.spec.traffic import Arrivals, Lengths, Load, Search, Trace

T = TypeVar("T")
Engine = Literal["transformers", "vllm", "sglang", "lmdeploy", "tensorrt_llm", "openai", "echo"]

OFFLINE_TAKES_ARGS = ("sglang",)
"""Engines that read their server's arguments also when they live in a process of ours."""


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names a value twice; list each once")
    return values


class Prompts(Spec):
    """What is asked."""

    file: NonEmpty = "prompts/jobs.jsonl"
    """JSON Lines, JSON or parquet; each row has `prompt` (text), `messages`, ShareGPT's `conversations` or `instruction`, and perhaps
    `reference`, the right answer. A conversation is asked up to its last user turn. A path from the working directory, else from
    the ncdemo checkout."""
    count: PositiveInt = 16
    """Requests per cell; the file is repeated when it is shorter."""
    unusable_rows: Literal["stop", "skip"] = "stop"
    """A row that is broken, or too long for max_model_len: `stop` says which and ends the run, `skip` leaves it out and counts it."""
    distinct: bool | None = None
    """true: each load, length and repeat asks other prompts, and the warm-up others again, so that no prefix cache knows them; all engines
    are asked alike. It needs lengths, a trace, or a file with rows enough for all, of which 64 tokens differ. null: where the engines
    include openai, whose cache can't be emptied, and what is asked allows it."""


class Sampling(Spec):
    """How every engine generates. Equal output lengths keep the comparison fair."""

    max_new_tokens: PositiveInt = 64
    """Output tokens of each request, at most (exactly, with ignore_eos)."""
    ignore_eos: bool = True
    """True: every request yields exactly max_new_tokens, whatever the model would like."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """0 is greedy."""
    seed: Seed = 0
    """Of what is drawn: synthesised prompts, an open loop's random gaps (repeat r draws with seed + r, for every engine alike), and tokens
    where the temperature is above 0."""


class Slo(Spec):
    """Service level objective of one request (default: MLPerf Llama-3.1-8B, conversational)."""

    ttft_s: float = Field(default=2.0, gt=0)
    """Longest time to the first token, seconds."""
    tpot_s: float = Field(default=0.1, gt=0)
    """Longest time per output token after the first, seconds."""


class BenchSpec(Spec):
    """One benchmark: every engine x model x precision x tensor parallel size x load x length is measured `repeats` times."""

    kind: Literal["bench"] = "bench"
    """Says that this file is a benchmark."""
    name: Name = "bench"
    """Begins the run directory's name."""
    mode: Literal["offline", "server"] = "offline"
    """`offline`: the engine in a process of ours, no network. `server`: the engine's own server, loaded over HTTP."""
    models: Annotated[tuple[ModelRef, ...], Field(min_length=1), AfterValidator(_distinct)] = (ModelRef(),)
    """Measured one after the other."""
    engines: Annotated[tuple[Engine, ...], Field(min_length=1), AfterValidator(_distinct)] = ("transformers",)
    """Measured in turn, A B A B."""
    reference: Engine | None = None
    """The engine whose greedy answers are right: those that answer otherwise are flagged. null: nobody knows, so an engine is flagged
    unless most of them, itself among them, answer like it; of two that differ, both."""
    url: NonEmpty | None = None
    """Engine openai: the endpoint, e.g. http://127.0.0.1:8000. It is used as it is, neither started nor stopped."""
    endpoint: Literal["completions", "chat"] = "completions"
    """Engine openai: what it is asked through. `completions` takes token ids; `chat`, all that some have, takes messages and applies its
    own template to them."""
    concurrency: Annotated[tuple[PositiveInt, ...], AfterValidator(_distinct)] | None = None
    """Closed loop: requests in flight at once (null: 8 unless arrivals, trace or search is given)."""
    arrivals: Arrivals | None = None
    """Open loop: rates at which requests are sent. Needs mode: server."""
    trace: Trace | None = None
    """Open loop: recorded traffic. Needs mode: server."""
    search: Search | None = None
    """Find the highest rate that meets the slo. Needs mode: server."""
    prompts: Prompts = Prompts()
    """The same for every cell."""
    lengths: Annotated[tuple[Lengths, ...], AfterValidator(_distinct)] = ()
    """Synthesised prompts instead of prompts.file; each entry is a dimension of the sweep."""
    sampling: Sampling = Sampling()
    """How engines generate."""
    slo: Slo = Slo()
    """What a good answer's latency is."""
    repeats: PositiveInt = 1
    """Measurements of each cell, interleaved so that drift hits all engines alike."""
    warmup_requests: int = Field(default=2, ge=0)
    """Requests before the first measurement of each engine, thrown away."""
    precision: Precision | Annotated[tuple[Precision, ...], Field(min_length=1)] = "auto"
    """`auto`: bf16 on a GPU, fp32 on a CPU. A list is a dimension of the sweep."""
    tensor_parallel_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_distinct)] = (1,)
    """GPUs that share each layer; a dimension of the sweep."""
    max_model_len: int = Field(default=2048, ge=16)
    """Prompt and output tokens of one request, at most; the same for every engine."""
    prefix_cache: bool = False
    """True: engines keep what they computed of a prompt for others that begin alike, and are emptied before each cell, where they can
    be. Needs mode: server; of use where prompts share beginnings, as in Mooncake's traces."""
    memory_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Share of the GPU's memory each engine may take; engines stay loaded side by side while their shares fit in 1."""
    prices: Prices | None = None
    """The node's price, for USD per million tokens (null: not computed)."""
    engine_metrics_every_s: float = Field(default=5.0, ge=0, le=3600)
    """Seconds between two looks at the queue of an engine's server while a cell is measured; each costs the server some milliseconds.
    0: only before and after each cell."""
    client_processes: Literal["auto"] | PositiveInt = "auto"
    """Processes of the load generator. `auto`: one; a cell in which that was above half of what it can do is measured once more with
    as many as it needs, up to the cores, and the first is thrown away; not where a prefix cache can't be emptied in between. Of use in
    mode: server."""
    server_args: dict[Engine, tuple[NonEmpty, ...]] = {}
    """By engine, arguments appended to its server's command as they are, e.g. {vllm: [--enforce-eager]}; in mode: offline for sglang
    alone. Those that ncdemo sets itself are refused."""
    request_timeout_s: float = Field(default=600.0, gt=0, le=86400)
    """Seconds from sending a request to its last byte; one that takes longer has failed. A server that brings nothing in that time for
    request after request hangs: its cell ends then. Offline a cell may take so long for each wave of its concurrency."""
    telemetry: Telemetry = Telemetry()
    """What is sampled and logged beside it."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return (self.precision,) if isinstance(self.precision, str) else self.precision

    @property
    def loads(self) -> tuple[Load, ...]:
        """Every load that is known before the run; a search adds its own."""
        closed = self.concurrency if self.concurrency is not None else () if self.arrivals or self.trace or self.search else (8,)
        loads = [Load(kind="closed", concurrency=n) for n in closed]
        if self.arrivals:
            a = self.arrivals
            loads += [Load(kind=a.process, rate_rps=rate, burstiness=a.burstiness) for rate in a.rates_rps]
        if self.trace:
            loads.append(Load(kind="trace", scale=self.trace.scale))
        return tuple(loads)

    def args_of(self, engine: str) -> tuple[str, ...]:
        """Return what is appended to an engine's server's command."""
        return next((words for name, words in self.server_args.items() if name == engine), ())

    @property
    def max_concurrency(self) -> int:
        """Requests that an engine must be ready to batch: the largest closed loop; open loops are unbounded, so 256."""
        closed = [load.concurrency for load in self.loads if load.concurrency is not None]
        return max(closed) if len(closed) == len(self.loads) and closed else max([256, *closed])

    @property
    def distinct_prompts(self) -> bool:
        """Whether each load, length and repeat is to ask other prompts."""
        return "openai" in self.engines if self.prompts.distinct is None else self.prompts.distinct

    @property
    def subjects_per_model(self) -> int:
        return len(self.engines) * len(self.precisions) * len(self.tensor_parallel_sizes)

    @property
    def side_by_side(self) -> bool:
        """Whether all engines of one model stay loaded together, rather than being started anew for each repeat."""
        return self.subjects_per_model * self.memory_fraction <= 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sampling.max_new_tokens >= self.max_model_len:
            raise ValueError("sampling.max_new_tokens leaves no room for a prompt in max_model_len; lower one or raise the other")
        for one in self.lengths:
            if one.input_tokens + one.output_tokens > self.max_model_len:
                raise ValueError(f"lengths: {one.shown} don't fit in max_model_len; shorten them or raise it")
        return self

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        if len(set(self.precisions)) != len(self.precisions):
            raise ValueError("precision names a value twice; list each once")
        if len({ref.shown for ref in self.models}) != len(self.models):
            raise ValueError("models: two have one name in the results; give each a label of its own")
        return self

    @model_validator(mode="after")
    def _has_loads(self) -> Self:
        for key in ("arrivals", "trace", "search"):
            if getattr(self, key) is not None and self.mode != "server":
                raise ValueError(f"{key} needs mode: server, as an offline engine is given all prompts at once; set it, or remove {key}")
        if self.search and self.prompts.count < self.search.least_requests:
            raise ValueError(
                f"search: {self.prompts.count} requests can't show {self.search.attainment:g} with confidence {self.search.confidence:g}, "
                f"even if all are good; set prompts.count to at least {self.search.least_requests}"
            )
        if self.search and self.prompts.distinct and not self.lengths:
            raise ValueError("prompts.distinct: a search asks as many prompts as it likes, so they must be synthesised; give lengths")
        if not self.loads and self.search is None:
            raise ValueError("concurrency is empty and nothing else says the load; list at least one, or add arrivals")
        return self

    @model_validator(mode="after")
    def _served(self) -> Self:
        outside = "openai" in self.engines
        if outside != (self.url is not None):
            raise ValueError("url is for engine openai, which needs it: an endpoint that runs already; add the one that is missing")
        if self.mode == "server" and "transformers" in self.engines:
            raise ValueError("engines: transformers has no server, so it needs mode: offline; set it, or remove transformers")
        if outside and len(self.precisions) * len(self.tensor_parallel_sizes) > 1:
            raise ValueError("engines: openai runs already, in one precision and on so many GPUs as it has; give one of each")
        if outside and self.mode != "server":
            raise ValueError("engines: openai is an endpoint, so it needs mode: server; set it")
        if self.endpoint == "chat" and self.engines != ("openai",):
            raise ValueError(
                "endpoint: chat is for engine openai alone, as the others are given token ids; remove it, or measure the others by a "
                "spec of their own"
            )
        if self.prefix_cache and self.mode != "server":
            raise ValueError("prefix_cache needs mode: server, as an engine of ours can't be emptied between cells; set it, or remove it")
        if len(self.tensor_parallel_sizes) > 1 and self.mode != "server":
            raise ValueError("tensor_parallel_sizes needs mode: server for more than one size; set it, or give one size")
        return self

    @model_validator(mode="after")
    def _has_reference(self) -> Self:
        if self.reference is not None and self.reference not in self.engines:
            raise ValueError(f"reference: {self.reference} is not in engines; add it there, or name one of: {', '.join(self.engines)}")
        return self

    @model_validator(mode="after")
    def _takes_arguments(self) -> Self:
        for engine in self.server_args:
            if engine not in self.engines:
                raise ValueError(f"server_args: {engine} is not in engines; add it there, or remove its arguments")
            if engine == "openai":
                raise ValueError(
                    "server_args: openai is an endpoint that runs already; give them where it is started, and remove them here"
                )
            if engine == "transformers":
                raise ValueError("server_args: transformers has no server; remove its arguments")
            if self.mode != "server" and engine not in OFFLINE_TAKES_ARGS:
                raise ValueError(f"server_args: {engine} takes none in mode: offline; set mode: server, or remove them")
        return self
