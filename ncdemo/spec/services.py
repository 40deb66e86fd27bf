"""What surrounds a stack's machines: network, storage, images, monitoring, and what guards the bill."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.capacity import AllowedCidr, Cidr
from ncdemo.spec.common import NonEmpty, text

Digest = Annotated[str, text(r"^sha256:[0-9a-f]{64}$", "sha256: and 64 hex digits")]
Email = Annotated[str, text(r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "an e-mail address")]
ClockTime = Annotated[str, text(r"^([01]\d|2[0-3]):[0-5]\d$", "a time in quotes, 00:00 to 23:59, in UTC")]
UtcTime = Annotated[
    str,
    text(
        r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$",
        "a time in UTC and in quotes, e.g. '2027-01-31T18:00:00Z'",
    ),
]
ImageName = Literal["train", "unsloth", "vllm", "sglang", "lmdeploy", "mlflow"]


class Network(Spec):
    """The virtual network. Nothing in it is reachable from the internet unless you say so."""

    address_space: Cidr = "10.64.0.0/16"
    """Of the virtual network; at least a /20."""
    ssh_from: tuple[AllowedCidr, ...] = ()
    """VMs alone: networks that may log in by SSH; each VM then gets a public address (empty: none has one)."""
    bastion: Literal["none", "developer", "basic"] = "none"
    """VMs alone: SSH through the portal without a public address on the VM. Developer is free; Basic is paid by the hour."""

    @model_validator(mode="after")
    def _large_enough(self) -> "Network":
        if int(self.address_space.rpartition("/")[2]) > 20 or ":" in self.address_space:
            raise ValueError("address_space must be IPv4 and at least a /20 (4,096 addresses); e.g. 10.64.0.0/16")
        return self


class Storage(Spec):
    """The Blob account for checkpoints, data sets and results. Reached by identity alone; it has no usable keys."""

    replication: Literal["LRS", "ZRS"] = "LRS"
    """Copies: in one data centre, or across zones."""
    keep_deleted_days: Annotated[int, Field(ge=1, le=365)] = 7
    """Deleted blobs can be brought back for so long."""
    checkpoint_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Checkpoints not touched for so long are deleted; results are kept."""
    allowed_from: tuple[AllowedCidr, ...] = ()
    """Networks outside Azure's virtual network that reach the account (empty: any, with an identity that has a role)."""
    files_gib: Annotated[int, Field(ge=100, le=102400)] | None = None
    """Premium Azure Files share over NFS, mounted at /files in every job (null: none). It is paid by its size."""


class Images(Spec):
    """Which container images run the jobs and the services."""

    repository: NonEmpty | None = None
    """Registry and name, without a tag (null: `ncdemo` in the stack's own registry)."""
    version: Annotated[str, text(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$", "letters, digits, dots, hyphens and underscores, at most 100")] = (
        "0.1.0"
    )
    """Tags are <version>-<name>, e.g. 0.1.0-train."""
    digests: dict[ImageName, Digest] = {}
    """Name -> digest; a digest wins over the version."""


class Monitoring(Spec):
    """What watches the jobs."""

    in_cluster: bool = False
    """Pushgateway, Prometheus and MLflow in the cluster's namespace `monitoring`. VMs keep each run's evidence in Blob alone."""
    metrics_days: Annotated[int, Field(ge=1, le=365)] = 30
    """Prometheus keeps so much."""
    volume_gib: Annotated[int, Field(ge=8, le=4096)] = 32
    """Disk of Prometheus, and of MLflow's database."""
    grafana: bool = False
    """Grafana with our dashboards beside them, reached by kubectl port-forward alone; needs in_cluster."""
    azure_monitor: bool = False
    """Azure Monitor workspace too, fed by AKS's managed Prometheus."""
    azure_monitor_alerts: bool = False
    """Our rules evaluated in that workspace, and cost_guard.alert_emails told by Azure; needs azure_monitor. What rules query is billed."""
    application_insights: bool = False
    """Application Insights resource for jobs with telemetry.azure_monitor: identity. Each job gets its connection string; only the jobs'
    identity may write."""
    application_insights_gb_per_day: Annotated[float, Field(ge=0.1, le=1000)] = 1.0
    """It keeps so much; what comes after that in a day is lost."""

    @model_validator(mode="after")
    def _alerts_have_data(self) -> "Monitoring":
        if self.azure_monitor_alerts and not self.azure_monitor:
            raise ValueError("azure_monitor_alerts are rules over what azure_monitor holds; set azure_monitor: true too")
        return self

    @model_validator(mode="after")
    def _grafana_has_data(self) -> "Monitoring":
        if self.grafana and not self.in_cluster:
            raise ValueError("grafana shows what in_cluster's Prometheus holds; set in_cluster: true too")
        return self


class CostGuard(Spec):
    """What keeps a forgotten stack from costing much."""

    monthly_budget_usd: Annotated[float, Field(gt=0)] | None = None
    """Budget of the resource group, in the subscription's currency. It warns; it stops nothing."""
    alert_emails: tuple[Email, ...] = ()
    """Who is told at 50, 80 and 100 % of the budget."""
    shutdown_utc: ClockTime | None = "19:00"
    """VMs alone: all are deallocated at this time every day (null: never)."""
    expires: UtcTime | None = None
    """Until when the stack is wanted: the tag `expires` on all it makes, and `ncdemo stack expire` finds it after (null: no end)."""
    job_deadline_h: Annotated[float, Field(gt=0, le=720)] = 24.0
    """A job that takes longer is ended, unless it says otherwise."""

    @model_validator(mode="after")
    def _budget_is_heard(self) -> "CostGuard":
        if self.monthly_budget_usd and not self.alert_emails:
            raise ValueError("monthly_budget_usd needs someone to tell; add alert_emails")
        return self

    @model_validator(mode="after")
    def _expires_on_a_day_that_is(self) -> "CostGuard":
        try:
            _ = self.expires and self.expires_at
        except ValueError:
            raise ValueError("expires isn't a day of the calendar; write e.g. '2027-01-31T18:00:00Z'") from None
        return self

    @property
    def expires_at(self) -> datetime | None:
        return datetime.fromisoformat(self.expires) if self.expires else None
