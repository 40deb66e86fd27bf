"""What a benchmark writes: a record per request, per cell, and their sum. Formulas: docs/measurement.md."""

from typing import Literal

from ncdemo.spec.record import Record
from ncdemo.spec.result_engine import EngineCounts
from ncdemo.spec.server_args import ServerArg

LAG = 0.02
"""Of Cell.lag, what an engine that keeps up may show. Our choice."""
TokensFrom = Literal["engine", "token_ids", "usage", "text"]


class RequestRecord(Record):
    """One inference request: raw stamps first (seconds since the clock zero of the run), then what follows from them."""

    engine: str
    model: str
    variant: str | None = None
    """Precision and tensor parallel size, where the sweep has several."""
    setting: str | None = None
    """Load and lengths, e.g. 'poisson 4 req/s' (None: a run of an older version, which had only closed loops)."""
    concurrency: int | None = None
    """Of a closed loop."""
    repeat: int
    index: int
    ok: bool
    error: str | None = None
    failure: str | None = None
    """Class of the error."""
    prompt_tokens: int
    """As we counted them."""
    server_prompt_tokens: int | None = None
    """As the server counted them (None: it did not, or the engine has no server)."""
    output_tokens: int | None
    """None: neither the server nor a tokenizer counted them."""
    output_tokens_from: TokensFrom | None = None
    """Who counted them: the engine in our process, token ids in the answer, the server's usage, or the model's own tokenizer from the
    text, as the server told nothing (None: nobody, or a run of an older version)."""
    finish_reason: str | None = None
    """As the server said."""
    http_status: int | None = None
    scheduled_s: float
    sent_s: float
    chunk_s: list[float]
    """Arrival of each chunk that carries tokens."""
    chunk_tokens: list[int] | None
    """Tokens in each of those chunks; None where the server counts them otherwise or not at all."""
    chunk_tokens_from: Literal["engine", "token_ids", "usage", "one_each", "unknown"] | None = None
    """How they are known; `unknown`: the server's count is not that of its chunks; `one_each`: it told none. None: an older version."""
    first_chunk_tokens: int | None = None
    """Tokens in the first chunk, of tpot_s; where chunk_tokens is None the model's own tokenizer's count of its text (None: neither told,
    or an older version)."""
    token_ids: list[int] | None = None
    """Output token ids, where the engine tells them."""
    text: str | None = None
    ttft_s: float | None = None
    ttft_from_schedule_s: float | None = None
    e2e_s: float | None = None
    tpot_s: float | None = None
    normalized_latency_s: float | None = None


class Distribution(Record):
    """Order statistics; a percentile is None where the samples are too few to bound it at 0.99 confidence."""

    count: int
    mean: float
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    min: float
    max: float


class Gates(Record):
    """What must be equal between two cells before their numbers are compared."""

    prompt_hash: str
    """sha256 of all prompt token ids of the cell."""
    asked_tokens: str
    """What each request was asked for: '64 exactly' or '64 at most', or the trace's own."""
    temperature: float
    precision: str
    """The number format that really ran."""
    max_model_len: int
    memory_fraction: float
    warmup_requests: int
    prefix_cache: str
    """How it was kept from answering: off, reset (emptied before the cell) or distinct prompts (it can't be emptied, and nothing in the
    run had asked them before); 'asked before' where a try that was cut short may have asked those; 'on' where it can't be emptied;
    'unknown' for an endpoint of others."""
    prefix_reuse: bool | None = None
    """Whether requests of the cell may find each other's prefixes (None: a result of an older version)."""
    mode: Literal["offline", "server"] | None = None
    """Stamps are the engine's own process's, or a client's over HTTP (None: a result of an older version)."""
    tensor_parallel: int | None = None
    """GPUs that share each layer (None: a result of an older version, as below)."""
    max_concurrency: int | None = None
    """Requests that the engine was told to be ready to batch."""
    arrival_seed: int | None = None
    """Of random gaps between sends: equal seeds are equal times; each repeat has its own (None: the load has none)."""
    slo_ttft_s: float | None = None
    """The objectives: where they differ, goodput is not compared and all else is."""
    slo_tpot_s: float | None = None


class Client(Record):
    """What the load generator itself did in a cell: proof that it was not the limit."""

    processes: int
    cpu_share: float
    """Its busiest process' CPU time / window."""
    events_per_s: float
    ceiling_events_per_s: float | None = None
    """What it can handle, measured against a server that answers as fast as it can, on this machine."""
    headroom: float | None = None
    """1 - the larger of events_per_s / ceiling_events_per_s and cpu_share; below 0.5 the cell is flagged."""
    headroom_of_one: float | None = None
    """That of the same load with one process, which was measured first and thrown away as one had too little (None: it had enough)."""
    max_lateness_s: float
    """The latest send, behind its schedule."""


class Cell(Record):
    """One engine x model x variant x setting x repeat. Formulas: docs/measurement.md."""

    engine: str
    model: str
    variant: str | None = None
    """Precision and tensor parallel size, where the sweep has several."""
    tensor_parallel_size: int | None = None
    """GPUs that share each layer; None in results of an older version."""
    setting: str | None = None
    """Load and lengths in words; None in results of an older version."""
    lengths: str | None = None
    """Of synthesised prompts and their answers, in words."""
    concurrency: int | None = None
    """Of a closed loop."""
    rate_rps: float | None = None
    """Of an open loop: mean requests per second that were due; of a trace (requests - 1) / its last one's time."""
    searched: bool = False
    """Its rate was chosen by the search for the highest one."""
    repeat: int
    requests: int
    failed: int
    error: str | None = None
    """Why the cell could not be measured. Answers that came before it failed are among its requests, and in no figure of it."""
    failure: str | None = None
    """Class of that error: engine_missing, model_missing, load_failed, engine_died, engine_hung, engine_error, out_of_memory,
    prompt_too_long, no_prompts, load_generator, disk_full, and those of requests where all failed."""
    first_try: str | None = None
    """Why a search's first try of this rate gave nothing: it was measured once more (None: it was not)."""
    start_s: float | None = None
    """First send, seconds since the run's clock zero."""
    window_s: float | None = None
    """First send to last token, or to the last send where all that were sent later failed."""
    output_tokens: int | None = None
    tokens_from_text: int | None = None
    """Answers whose tokens the model's own tokenizer counted from the text, as the server told none (None: an older version)."""
    output_tokens_per_s: float | None = None
    """Output tokens of the window / window."""
    steady_s: float | None = None
    """The steady part of the window: from the first answer's end to the last send, without filling and draining. None: it is too short."""
    steady_output_tokens_per_s: float | None = None
    """Output tokens that came in it / its length."""
    requests_per_s: float | None = None
    sends_s: float | None = None
    """First send to last send."""
    lag: float | None = None
    """Of an open loop: (requests sent - requests that ended) in the second half of sends_s / those sent in it, failures left out. Near 0
    where the engine keeps up, near the share of the rate that it can't take where it doesn't."""
    lag_noise: float | None = None
    """Two standard deviations of it, if the requests in flight at the ends of that half were two Poisson counts."""
    least_e2e_s: float | None = None
    """What an answer takes at the least: lowest e2e_s per token x mean output tokens."""
    slo_attainment: float | None = None
    """Requests that met every SLO / requests sent; a failure is a miss."""
    slo_attainment_low: float | None = None
    """Wilson's lower bound of it, one-sided, at 0.95 confidence."""
    goodput_rps: float | None = None
    """Requests that met every SLO / window."""
    ttft_s: Distribution | None = None
    ttft_from_schedule_s: Distribution | None = None
    """Since the request was due: a late client or a queue before it can't hide."""
    e2e_s: Distribution | None = None
    tpot_s: Distribution | None = None
    itl_s: Distribution | None = None
    """Gaps between chunks / tokens of the later chunk, repeated per token, pooled over requests."""
    icl_s: Distribution | None = None
    """The raw gaps between chunks with tokens, pooled over requests."""
    energy_j: float | None = None
    """What all GPUs of the node took in the window (None: no GPU tells, or a gap in the samples)."""
    energy_from: Literal["counter", "power"] | None = None
    """The GPUs' own energy counters, or the integral of their sampled power."""
    energy_j_per_token: float | None = None
    """energy_j / output tokens."""
    usd_per_mtok: float | None = None
    """Pay-as-you-go price of the node x window / output tokens x 1e6."""
    usd_per_mtok_spot: tuple[float, float] | None = None
    """The same at the lowest and the highest spot price seen."""
    equal_output_tokens: bool | None = None
    """Fairness: every request yielded exactly the tokens that were asked for (None: not asked for)."""
    asked_output_tokens: int | None = None
    """What all requests together were to yield (None: not asked for exactly, or a run of an older version)."""
    equal_prompt_tokens: bool | None = None
    """Fairness: the server counted as many prompt tokens as it was sent, in every answer (None: it counted in none)."""
    agreements: dict[str, float] | None = None
    """Mean share of leading output tokens, of the first 32, equal to those of each subject whose cell of the same model, load and repeat
    was measured before (None: the answers were sampled or have no token ids, the cell was not measured, or an older version)."""
    token_agreement: float | None = None
    """Fairness: that share with the spec's reference; without its answers the highest that so many other subjects of the same precision
    reach as make a majority with this one, so of two engines each has the other's. None: this is the reference, or there is nobody to
    compare with."""
    agreement_with: str | None = None
    """The subject with which that is (None also in results of an older version, where it is the first one)."""
    agreement_by: Literal["reference", "others"] | None = None
    """Whether the spec names it as the one that is right."""
    exact_match: float | None = None
    """Share of answers equal to their prompt's reference, outer white space aside; None where prompts have no reference."""
    exact_match_examples: int | None = None
    exact_match_best: float | None = None
    """Fairness: the highest exact_match of another subject of the same model, load and repeat, where this cell's is lower by more than
    noise: Newcombe's interval at 95 %, of as many examples as there are distinct prompts (None: it is not)."""
    distinct_prompts: int | None = None
    """Prompts of the cell that differ: a short file is repeated (None: not measured, or a run of an older version)."""
    gates: Gates | None = None
    client: Client | None = None
    counted: EngineCounts | None = None
    """What the engine's own metrics say (None: it has none that we know, or the run is of an older version)."""
    server_args: list[ServerArg] | None = None
    """What was appended to its server's command, and what each argument changes (None: an endpoint of others, a cell that was not
    measured, or a run of an older version)."""

    @property
    def piled_up(self) -> bool:
        """Whether answers fell behind the sends of an open loop by more than LAG and more than noise: a queue that grows."""
        return self.lag is not None and self.lag > max(LAG, self.lag_noise or 0.0)

    @property
    def subject(self) -> str:
        """Who was measured: the engine, with its variant where the sweep has several."""
        return subject_of(self.engine, self.variant)

    @property
    def load(self) -> str:
        """What every subject was given alike: a closed loop's concurrency alone, or the setting in words."""
        return load_of(self.setting, self.concurrency)


class SearchResult(Record):
    """Where a search ended."""

    engine: str
    model: str
    variant: str | None = None
    lengths: str | None = None
    max_goodput_rate_rps: float | None = None
    """Highest rate measured that met the objectives (None: no rate did)."""
    above_rps: float | None = None
    """Lowest rate measured that did not (None: every rate did)."""
    attainment: float | None = None
    """Share of good requests that was asked for (None: a result of an older version)."""
    runs: int
    reason: str

    @property
    def subject(self) -> str:
        return subject_of(self.engine, self.variant)


def subject_of(engine: str, variant: str | None) -> str:
    return f"{engine} {variant}" if variant else engine


def load_of(setting: str | None, concurrency: int | None) -> str:
    return str(concurrency) if setting in (None, f"concurrency {concurrency}") else setting


def first_token(concurrency: int | None) -> str:
    """Return the name of what is waited for the first token: in an open loop it counts since the request was due."""
    return "ttft_from_schedule_s" if concurrency is None else "ttft_s"


class PromptRows(Record):
    """What became of the rows of prompts.file, read until there were enough."""

    read: int
    used: int
    skipped: dict[str, int] = {}
    """Rows left out, by reason: not_json, no_prompt, bad_reference, bad_turns, no_user_turn, template_refuses, too_long."""


class BenchResult(Record):
    cells: list[Cell]
    searches: list[SearchResult] = []
    prompt_tokens: int
    prompt_hash: str
    """sha256 of all prompt token ids of a cell, per model: equal prompts for every engine. First model's."""
    prompt_rows: PromptRows | None = None
    """First model's; None for prompts that were synthesised."""
    engine_versions: dict[str, str]
    """As installed here; of an endpoint of others what it says at /version, else 'unknown'."""
    server_args: dict[str, list[str]] = {}
    """By engine: what was appended to its server's command."""
    load_time_s: dict[str, float]
    """Per 'engine model': start of the engine's process until it could answer."""
