"""TrainSpec: one fine-tuning run, from model and data to what is evaluated and kept."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.common import SHIPPED_DATA, ModelRef, Name, NonEmpty, PositiveInt, Precision, Prices, Seed, Telemetry
from ncdemo.spec.speed import Speed, misfit

DataFormat = Literal["auto", "text", "prompt_completion", "instruction", "messages", "sharegpt"]


class Data(Spec):
    """Which examples, and how they become batches."""

    name: NonEmpty = SHIPPED_DATA
    """`ncdemo-jobs` (shipped), a hub data set id, or a .json, .jsonl or .parquet file."""
    revision: NonEmpty | None = None
    """Commit, tag or branch of a hub data set; the resolved commit is recorded."""
    format: DataFormat = "auto"
    """How a row is read. `auto` decides by its columns and refuses what it doesn't know."""
    train_examples: PositiveInt | None = None
    """Use this many training examples (None: all)."""
    eval_examples: PositiveInt = 64
    """Held-out examples for loss, perplexity and token accuracy."""
    max_seq_len: int = Field(default=512, ge=16)
    """Tokens in one row of a batch. Longer examples are cut; how many is recorded."""
    packing: bool = True
    """Fill each row with several examples that don't attend to each other, instead of padding."""
    seed: Seed = 0
    """Decides the order of the examples."""


class Lora(Spec):
    """Low-rank adapters (used when train.method is lora)."""

    r: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveInt = 32
    """Adapters are scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs dropped in training."""
    target_modules: tuple[NonEmpty, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get adapters."""


class Accelerate(Spec):
    """What only Accelerate knows (used when train.strategy is accelerate)."""

    sharding: Literal["none", "fsdp2"] = "none"
    """Each rank holds all (DDP), or weights, gradients and optimizer state are spread over ranks (FSDP2)."""
    config_file: NonEmpty | None = None
    """An Accelerate config in YAML, merged with what this spec says; a contradiction is an error."""


class DeepSpeed(Spec):
    """What only DeepSpeed knows (used when train.strategy is deepspeed)."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """Spread over ranks: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in host memory and update there (stages 1 to 3)."""
    offload_params: bool = False
    """Keep the weights in host memory as well (stage 3)."""
    config_file: NonEmpty | None = None
    """A DeepSpeed config in JSON, merged with what this spec says; a contradiction is an error."""

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3, and it is 0; raise it, or remove offload_optimizer")
        if self.offload_params and self.zero_stage != 3:
            raise ValueError(f"offload_params needs zero_stage 3, and it is {self.zero_stage}; raise it, or remove offload_params")
        return self


class Unsloth(Spec):
    """What only Unsloth knows (used when train.strategy is unsloth)."""

    load_in_4bit: bool = False
    """Freeze the base model in 4-bit NF4 (QLoRA); the adapters stay fp32."""


class Train(Spec):
    """How the weights are changed."""

    strategy: Literal["accelerate", "deepspeed", "unsloth"] = "accelerate"
    """Which library runs the training."""
    accelerate: Accelerate = Accelerate()
    """Accelerate's own settings."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed's own settings."""
    unsloth: Unsloth = Unsloth()
    """Unsloth's own settings."""
    method: Literal["full", "lora"] = "full"
    """All weights, or low-rank adapters beside frozen ones."""
    lora: Lora = Lora()
    """The adapters' shape."""
    processes: PositiveInt = 1
    """Ranks on this machine: one per GPU, or several gloo processes on a CPU."""
    rendezvous_timeout_s: PositiveInt = 600
    """A job of several nodes fails when they haven't all met by then."""
    max_steps: PositiveInt | None = None
    """Optimizer steps; give this or epochs, not both."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training data (null, and max_steps null: one)."""
    micro_batch_size: PositiveInt = 1
    """Rows per forward pass and rank."""
    grad_accum_steps: PositiveInt = 1
    """Forward passes per optimizer step."""
    learning_rate: float = Field(default=2e-5, gt=0, le=1)
    """The highest learning rate, reached after the warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to 0 after the warm-up, or stays."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """AdamW's decoupled decay, on matrices alone."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Clip the gradient's norm to this. null: no clipping; the norm is reported all the same."""
    precision: Precision = "auto"
    """`auto`: bf16 where the hardware multiplies it natively, else fp32. Weights stay fp32."""
    seed: Seed = 0
    """Decides dropout and new adapters' weights."""
    speed: Speed = Speed()
    """What makes a step faster or smaller."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.max_steps is not None and self.epochs is not None:
            raise ValueError("max_steps and epochs are both given; keep one")
        return self

    @model_validator(mode="after")
    def _lora_fits(self) -> Self:
        if self.method == "full" and self.lora != Lora():
            raise ValueError("lora settings have no effect with method: full; set train.method to lora or remove them")
        return self

    @model_validator(mode="after")
    def _section_fits_strategy(self) -> Self:
        for name, section in (("accelerate", self.accelerate), ("deepspeed", self.deepspeed), ("unsloth", self.unsloth)):
            if self.strategy != name and section != type(section)():
                raise ValueError(
                    f"{name} settings have no effect with strategy: {self.strategy}; set train.strategy to {name} or remove them"
                )
        if self.strategy == "unsloth" and self.method != "lora":
            raise ValueError("strategy unsloth trains adapters alone; set train.method to lora")
        return self

    @model_validator(mode="after")
    def _speed_fits(self) -> Self:
        zero_stage, precision = self.deepspeed.zero_stage, self.precision
        if reason := misfit(self.speed, strategy=self.strategy, method=self.method, zero_stage=zero_stage, precision=precision):
            raise ValueError(reason)
        return self


class Eval(Spec):
    """What is measured on held-out data, before and after training."""

    before: bool = True
    """Evaluate the untrained model too."""
    every_steps: PositiveInt | None = None
    """Held-out loss every so many steps (None: only before and after)."""
    exact_match_examples: int = Field(default=0, ge=0)
    """Held-out examples answered by greedy generation and compared with the reference; 0: none."""
    max_new_tokens: PositiveInt = 256
    """An answer that isn't complete by then is wrong."""
    batch_size: PositiveInt = 32
    """Examples generated together."""


class Checkpoint(Spec):
    """What a run that is stopped goes on from, to the last bit."""

    every_steps: PositiveInt | None = None
    """Write a checkpoint every so many steps (None: only when the run is asked to stop)."""
    keep: PositiveInt = 2
    """Newest checkpoints that stay; the final model always does."""
    uri: NonEmpty | None = None
    """Where they outlive the machine, e.g. az://checkpoints (None: NCDEMO_CHECKPOINT_URI, else the run directory)."""
    asynchronous: bool = True
    """Training waits for a copy to memory alone, and goes on while it is written."""
    resume: Literal["auto", "never", "must"] = "auto"
    """Go on from the newest whole checkpoint if there is one; begin anew; or refuse to begin anew."""


class TrainSpec(Spec):
    """One fine-tuning run."""

    kind: Literal["train"] = "train"
    """Says that this file is a training run."""
    name: Name = "train"
    """Begins the run directory's name."""
    model: ModelRef = ModelRef()
    """What is fine-tuned."""
    data: Data = Data()
    """What on."""
    train: Train = Train()
    """How."""
    eval: Eval = Eval()
    """What is measured on held-out data."""
    checkpoint: Checkpoint = Checkpoint()
    """What is kept."""
    prices: Prices | None = None
    """The node's price, for what a run cost (null: not computed)."""
    telemetry: Telemetry = Telemetry()
    """What is sampled and logged beside it."""

    @model_validator(mode="after")
    def _packing_fits(self) -> Self:
        if self.train.strategy == "unsloth" and self.data.packing:
            raise ValueError(
                "data.packing has no effect with train.strategy: unsloth, whose attention sees no borders; set data.packing to false"
            )
        return self
