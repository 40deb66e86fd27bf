"""The one result schema: what a run directory holds, with units and definitions. Not measured is None.

A run directory has spec.yaml, environment.json, result.json (RunRecord), and as JSON Lines steps.jsonl (StepRecord),
evals.jsonl (EvalRecord), requests.jsonl (RequestRecord), samples.jsonl (Sample); log.txt and, after training, model/.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class StepRecord(Record):
    """One optimizer step, summed over ranks. Times are seconds since the run's clock zero (RunRecord.started_at)."""

    step: int
    end_s: float
    step_time_s: float
    loss: float
    """Mean negative log-likelihood (nats) over the step's target tokens, all ranks."""
    learning_rate: float
    grad_norm: float
    """L2 norm of the gradient before clipping."""
    tokens: int
    """Tokens that are not padding."""
    target_tokens: int
    """Tokens that carry loss."""
    examples: int
    tokens_per_s: float
    """tokens / step_time_s."""


class EvalRecord(Record):
    """One evaluation on held-out data; equal definitions for every strategy."""

    step: int
    end_s: float
    loss: float
    perplexity: float
    """exp(loss)."""
    token_accuracy: float
    """Share of target tokens that are the model's first choice given the true prefix, 0 to 1."""
    target_tokens: int
    exact_match: float | None = None
    """Share of examples whose greedy answer equals the reference after stripping outer white space, 0 to 1."""
    exact_match_examples: int | None = None
    field_accuracy: float | None = None
    """Mean over examples of: reference YAML fields answered rightly / union of fields in reference and answer."""
    eval_time_s: float


class RequestRecord(Record):
    """One inference request: raw stamps first (seconds since the clock zero of the run), then what follows from them."""

    engine: str
    model: str
    concurrency: int
    repeat: int
    index: int
    ok: bool
    error: str | None = None
    prompt_tokens: int
    output_tokens: int
    scheduled_s: float
    sent_s: float
    chunk_s: list[float]
    """Arrival of each chunk that carries tokens."""
    chunk_tokens: list[int]
    """Tokens in each of those chunks."""
    text: str | None = None
    ttft_s: float | None = None
    ttft_from_schedule_s: float | None = None
    e2e_s: float | None = None
    tpot_s: float | None = None
    normalized_latency_s: float | None = None


class Sample(Record):
    """One reading of the machine. Rates are since the sample before; the first has none."""

    time_s: float
    """Seconds since the run's clock zero."""
    cpu_pct: float | None = None
    """Busy share of all cores, 0 to 100."""
    process_cpu_pct: float | None = None
    """CPU time of the run's process tree, 100 per core."""
    process_rss_bytes: int | None = None
    memory_used_bytes: int | None = None
    disk_read_bytes_per_s: float | None = None
    disk_write_bytes_per_s: float | None = None
    net_recv_bytes_per_s: float | None = None
    net_sent_bytes_per_s: float | None = None
    gpus: list["GpuSample"] = []


class GpuSample(Record):
    """One GPU through NVML. A GPU that stopped answering has error set and nothing else."""

    index: int
    error: str | None = None
    utilization_pct: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    energy_j: float | None = None
    """The GPU's own counter since the driver was loaded."""
    temperature_c: float | None = None
    sm_clock_hz: float | None = None


class Distribution(Record):
    """Order statistics; a percentile is None where the samples are too few to bound it at 0.99 confidence."""

    count: int
    mean: float
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    min: float
    max: float


class TrainResult(Record):
    """What a training run came to. Definitions are those of StepRecord and EvalRecord."""

    steps: int
    examples: int
    tokens: int
    target_tokens: int
    train_time_s: float
    """Sum of step times: no evaluation, checkpoint or loading."""
    tokens_per_s: float
    """Median over steps, the first left out (it warms caches)."""
    peak_rss_bytes: int | None = None
    """Largest resident memory of one rank's process."""
    peak_vram_bytes: int | None = None
    world_size: int
    engine: str | None = None
    """What really ran, e.g. DistributedDataParallel (None: a run of an older version)."""
    precision: Literal["fp32", "bf16"]
    trainable_parameters: int
    parameters: int
    padding_fraction: float
    """Padding tokens / all tokens computed."""
    truncated_examples: int
    before: EvalRecord | None = None
    after: EvalRecord | None = None
    model_dir: str | None = None
    """Folder of the final model, relative to the run directory."""
    dataset: dict[str, str | int | bool | None] = {}
    """Which data were really used: name, revision, fallback, content hash, number of examples."""


class Cell(Record):
    """One engine x model x concurrency x repeat. Formulas: docs/measurement.md."""

    engine: str
    model: str
    concurrency: int
    repeat: int
    requests: int
    failed: int
    error: str | None = None
    """Why the cell could not be measured at all."""
    window_s: float | None = None
    """First send to last token."""
    output_tokens_per_s: float | None = None
    """Output tokens of the window / window."""
    requests_per_s: float | None = None
    slo_attainment: float | None = None
    """Requests that met every SLO / requests sent; a failure is a miss."""
    goodput_rps: float | None = None
    """Requests that met every SLO / window."""
    ttft_s: Distribution | None = None
    e2e_s: Distribution | None = None
    tpot_s: Distribution | None = None
    itl_s: Distribution | None = None
    """Gaps between chunks / tokens of the later chunk, repeated per token, pooled over requests."""
    equal_output_tokens: bool | None = None
    """Fairness: every request yielded exactly the tokens that were asked for (None: not asked for)."""
    token_agreement: float | None = None
    """Fairness: mean share of leading output tokens equal to those of the first engine of the same model."""


class BenchResult(Record):
    cells: list[Cell]
    prompt_tokens: int
    prompt_hash: str
    """sha256 of all prompt token ids of a cell, per model: equal prompts for every engine. First model's."""
    engine_versions: dict[str, str]
    load_time_s: dict[str, float]
    """Per 'engine model': start of the engine's process until it could answer."""


class RunRecord(Record):
    """result.json of every run."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["train", "bench"]
    run_id: str
    name: str
    status: Literal["running", "finished", "failed", "interrupted"]
    reason: str | None = None
    """Why it did not finish, and what to do."""
    spec_hash: str
    started_at: str
    """UTC, ISO 8601; the zero of every *_s stamp in the run directory."""
    duration_s: float | None = None
    train: TrainResult | None = None
    bench: BenchResult | None = None
