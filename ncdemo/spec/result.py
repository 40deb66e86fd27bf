"""The one result schema: what a run directory holds, with units and definitions. Not measured is None.

A run directory has spec.yaml, environment.json, result.json (RunRecord), and as JSON Lines steps.jsonl (StepRecord),
evals.jsonl (EvalRecord), requests.jsonl (RequestRecord), samples.jsonl (Sample), engines.jsonl (EngineSample), cells.jsonl
(LedgerHead, then LedgerEntry per finished cell of a benchmark); log.txt, servers/<subject>/ with each server's command.json and
server.log, and, after training, model/.
"""

from typing import Literal

from ncdemo.spec.record import Record
from ncdemo.spec.result_bench import BenchResult

SCHEMA_VERSION = 1


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
    mfu: float | None = None
    """Useful floating point operations / (step_time_s x dense bf16 peak x GPUs), 0 to 1; None where the GPU has no known peak."""


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


class Sample(Record):
    """One reading of the machine. Rates are since the sample before that has them; the first has none."""

    time_s: float
    """When it was begun, seconds since the run's clock zero."""
    unix_s: float | None = None
    """The same moment by the machine's own clock, seconds since 1970 (None: a run of an older version). It counts the pause between two
    attempts, which time_s leaves out, and may be set while the run goes on: durations are differences of time_s."""
    tick: int | None = None
    """Its number in the schedule of telemetry.sample_hz, from 0 at the start of the sampler (None: the one more at the end, or a run of
    an older version). A number that is missing is a lost sample."""
    late_s: float | None = None
    """time_s - when the tick was due; always less than a period."""
    scheduling: str | None = None
    """In the first sample alone: what the system granted the sampler, e.g. round-robin, or niceness 0."""
    cpu_pct: float | None = None
    """Busy share of all cores, 0 to 100."""
    process_cpu_pct: float | None = None
    """CPU time of the run's process tree, 100 per core."""
    process_rss_bytes: int | None = None
    memory_used_bytes: int | None = None
    """All memory - what is available without swapping."""
    disk_read_bytes_per_s: float | None = None
    disk_write_bytes_per_s: float | None = None
    net_recv_bytes_per_s: float | None = None
    net_sent_bytes_per_s: float | None = None
    gpus: list["GpuSample"] = []


class GpuProcess(Record):
    pid: int
    """As the driver numbers it: in a container, not always as the container does."""
    memory_bytes: int | None = None


class GpuSample(Record):
    """One GPU through NVML, read within 0.3 s of the sample's time.

    A GPU that stopped answering has error set and nothing else but xids. All None, no error: NVML was busy with the sample before.
    The fields from pcie_tx_bytes_per_s on are slow to read: once a second beside the ticks, and given with the next sample alone.
    """

    index: int
    error: str | None = None
    utilization_pct: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    energy_j: float | None = None
    """The GPU's own counter since the driver was loaded."""
    temperature_c: float | None = None
    sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    throttle_reasons: list[str] | None = None
    """Why clocks are not higher, at this moment: gpu_idle, clocks_setting, power_cap, hw_slowdown, sync_boost, sw_thermal, hw_thermal,
    hw_power_brake, display_clocks (NVML's clocks event reasons)."""
    xids: list[int] | None = None
    """Critical errors that the driver reported since the sample before (None: it reports none of this GPU)."""
    pcie_tx_bytes_per_s: float | None = None
    """Sent by the GPU, over 20 ms: a spot check, not a mean."""
    pcie_rx_bytes_per_s: float | None = None
    nvlink_tx_bytes: int | None = None
    """Payload sent over all links, a counter."""
    nvlink_rx_bytes: int | None = None
    ecc_corrected: int | None = None
    """Memory errors since the driver was loaded, a counter."""
    ecc_uncorrected: int | None = None
    processes: list[GpuProcess] | None = None
    """Compute processes on the GPU."""


class FastPath(Record):
    """Which of train.speed's switches were really on: what `auto` came to on this machine and model."""

    cross_entropy: Literal["full", "chunked", "liger"]
    fused_adamw: bool
    compile: bool
    activation_checkpointing: bool
    fp8: bool

    @property
    def shown(self) -> str:
        """What is on beyond the plain way, in the spec's words; "" for nothing."""
        switches = [name for name in ("fused_adamw", "compile", "activation_checkpointing", "fp8") if getattr(self, name)]
        return ", ".join([*([] if self.cross_entropy == "full" else [f"{self.cross_entropy} cross entropy"]), *switches])


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
    mfu: float | None = None
    """Median over the same steps."""
    peak_rss_bytes: int | None = None
    """Largest resident memory of a rank's process, of all ranks."""
    peak_vram_bytes: int | None = None
    """Most GPU memory that tensors of a rank took, of all ranks and of the last attempt."""
    energy_j: float | None = None
    """What all GPUs of the node took in the steps (None: no GPU tells, not known for a step, as for one that reaches over a stop, or
    several nodes: `ncdemo train compare` sums them up where their folders lie side by side)."""
    world_size: int
    engine: str | None = None
    """What really ran, e.g. DistributedDataParallel (None: a run of an older version)."""
    precision: Literal["fp32", "bf16"]
    speed: FastPath | None = None
    """None: a run of an older version."""
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


class DiskFull(Record):
    """A time in which a file of the run could not be written: its disk was full, or its network mount failed."""

    file: str
    why: str
    """The system's word for it, e.g. No space left on device."""
    start_s: float
    """Since the run's clock zero."""
    end_s: float | None = None
    """None: there was still no room at the run's end."""
    held: int
    """Records that waited in memory for room."""
    lost: int
    """Records that were never written, as there was no room until the end, or more than memory holds."""


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
    instance: str | None = None
    """Node or machine that its newest attempt ran on (None: a run of an older version): its figures keep that label wherever they are
    exported from."""
    duration_s: float | None = None
    """The run's clock at its end. Of a run that went on after a stop: without the pause, and of training without what an attempt did
    after the checkpoint that the next one went on from."""
    disk_full: list[DiskFull] = []
    """Of its newest attempt, in order; samples and checkpoints have their own words in log.txt."""
    train: TrainResult | None = None
    bench: BenchResult | None = None
