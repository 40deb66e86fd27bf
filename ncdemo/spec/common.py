"""The parts that a training run and a benchmark share: which model, and what is measured beside them."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.sizes import SIZES, find

EMBEDDED_MODEL = "smollm2-135m-instruct"
SHIPPED_DATA = "ncdemo-jobs"

PositiveInt = Annotated[int, Field(ge=1)]
PATTERNS: dict[str, str] = {}
"""Pattern -> what it means, for messages: filled by `text`."""


def text(pattern: str, words: str) -> StringConstraints:
    """Return the constraint of a text that matches a pattern; messages say its meaning in these words."""
    PATTERNS[pattern] = words
    return StringConstraints(pattern=pattern)


Name = Annotated[
    str,
    text(
        r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
        "lower-case letters, digits and hyphens, at most 40, beginning and ending with a letter or digit",
    ),
]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what numpy takes


class ModelRef(Spec):
    """Which model to load."""

    name: NonEmpty = EMBEDDED_MODEL
    """A folder in Hugging Face form, a hub id, or `smollm2-135m-instruct`, which the `demo` extra ships."""
    revision: NonEmpty | None = None
    """Commit, tag or branch of a hub model (null: the hub's default branch)."""
    label: NonEmpty | None = None
    """What results and reports call it, and what an endpoint of others (engine openai) is asked for (null: its name)."""

    @property
    def shown(self) -> str:
        return self.label or self.name


class Telemetry(Spec):
    """What is sampled beside the work, and where the run is logged."""

    sample_hz: float = Field(default=2.0, ge=0, le=1000)
    """Hardware samples per second; 0 takes none."""
    mlflow_uri: NonEmpty | None = "default"
    """MLflow tracking URI. `default`: MLFLOW_TRACKING_URI, else an SQLite file beside the runs. null: no MLflow."""
    mlflow_model: Literal["none", "adapter", "all"] = "adapter"
    """What a finished training run leaves in MLflow of its weights: the LoRA `adapter`, or `all`, with model/ of many GB; `none` of them."""
    pushgateway: NonEmpty | None = "default"
    """URL of a Prometheus Pushgateway that gets the run's metrics. `default`: NCDEMO_PUSHGATEWAY, else none. null: none."""
    push_every_s: float = Field(default=15.0, ge=1, le=3600)
    """Seconds between two pushes while it runs; its end is pushed as well."""
    azure_monitor: Literal["identity", "key"] | None = None
    """Send the metrics to Azure Monitor too, where APPLICATIONINSIGHTS_CONNECTION_STRING says, as the machine's Azure identity or with
    that string's key alone (null: don't)."""
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Serve the run's metrics for Prometheus at this port while it runs (null: don't)."""
    metrics_host: NonEmpty = "127.0.0.1"
    """Address to serve them at; 0.0.0.0 lets the network in, which reads them without a password."""


class Prices(Spec):
    """What the node costs: the price table is ncdemo/spec/sizes.py."""

    vm_size: NonEmpty
    """An Azure VM size, e.g. Standard_NC40ads_H100_v5."""
    region: NonEmpty = "eastus"
    """The region whose pay-as-you-go price counts."""

    @field_validator("vm_size")
    @classmethod
    def _known(cls, name: str) -> str:
        if find(name) is None:
            raise ValueError(f"is not in the size table; known: {', '.join(SIZES)}")
        return name


Precision = Literal["auto", "fp32", "bf16"]
