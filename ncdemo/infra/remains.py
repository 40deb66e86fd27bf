"""What `ncdemo stack destroy` takes away for good, and what it leaves behind, with what that costs and how it goes.

for one in remains(load_stack("stacks/Pulumi.aks-dev.yaml")).left: print(one.what, one.usd_per_month)
"""

from dataclasses import dataclass
from pathlib import PurePath

from ncdemo.spec.stack_file import Stack

RECOVER_DAYS = 14
"""Azure brings a deleted storage account back for so long, if no other took its name (Recover a deleted storage account)."""
WORKSPACE_DAYS = 14
"""Azure keeps a deleted Log Analytics workspace so long (Log Analytics REST API, Workspaces - Delete)."""

WATCHERS = "the resource group NetworkWatcherRG"


@dataclass(frozen=True)
class Left:
    """Something that is still there after a destroy."""

    what: str
    usd_per_month: float | None
    """0.0: it is free; None: it costs what it did before, or what others set."""
    remedy: str


@dataclass(frozen=True)
class Remains:
    gone: tuple[str, ...]
    """Data that a destroy deletes for good."""
    left: tuple[Left, ...]


def remains(stack: Stack) -> Remains:
    return _of_cluster(stack) if stack.spec.target == "kubernetes" else _of_azure(stack)


def _of_azure(stack: Stack) -> Remains:
    spec, name = stack.spec, stack.name
    gone = ["every run's results (container metrics), checkpoints and data sets in Blob, deleted blobs that were still kept included"]
    if spec.target == "aks" and spec.monitoring.in_cluster:
        gone.append("MLflow's runs and artifacts, and Prometheus' samples")
    if spec.monitoring.azure_monitor and spec.target == "aks":
        gone.append("the Azure Monitor workspace with its metrics")
    if spec.monitoring.application_insights:
        gone.append("the Application Insights resource with the figures that runs sent to it")
    if spec.storage.files_gib:
        gone.append(f"the Files share, {spec.storage.files_gib} GiB")
    if spec.images.repository is None:
        gone.append("the container images in the stack's registry")
    if spec.target == "vm":
        count = sum(pool.max_count for pool in spec.pools)
        gone.append(f"{count} OS disk{'s' * (count > 1)}, and what was written there")
    accounts = "accounts" if spec.storage.files_gib else "account"
    left = [
        Left(
            f"the deleted storage {accounts}, which Azure can bring back for {RECOVER_DAYS} days",
            0.0,
            "nothing to do; portal: Storage accounts, Restore",
        ),
        *_of_all(stack),
    ]
    if spec.monitoring.application_insights:
        left.append(
            Left(
                f"the deleted Log Analytics workspace log-ncdemo-{name}, which comes back with its data for {WORKSPACE_DAYS} days when a "
                "stack of this name is made again",
                0.0,
                f"to delete it at once, before: az monitor log-analytics workspace delete --force -g rg-ncdemo-{name} -n log-ncdemo-{name}",
            )
        )
    if spec.target == "aks":
        left.append(
            Left(f"the kubeconfig entry aks-ncdemo-{name}, if you made it", 0.0, f"kubectl config delete-context aks-ncdemo-{name}")
        )
    left.append(
        Left(
            f"{WATCHERS}, which Azure makes with a region's first network", 0.0, "nothing to do: the subscription's other networks share it"
        )
    )
    left.append(Left("quota that was raised, and resource providers that were registered", 0.0, "nothing to do: both are free"))
    return Remains(tuple(gone), tuple(left))


def _of_cluster(stack: Stack) -> Remains:
    spaces = sorted({pool.namespace for pool in stack.spec.pools} or {"ncdemo"})
    gone = [f"runs on the volumes of namespace {', '.join(spaces)}, unless their storage class retains them"]
    if stack.spec.monitoring.in_cluster:
        gone.append("MLflow's runs and artifacts, and Prometheus' samples")
    left = [
        Left("the cluster itself, its nodes and what else runs there", None, "it isn't this stack's: whoever made it ends it"),
        Left("volumes whose storage class retains them", None, "kubectl get pv, then: kubectl delete pv NAME"),
        *_of_all(stack),
    ]
    return Remains(tuple(gone), tuple(left))


def _of_all(stack: Stack) -> list[Left]:
    """Return what a stack leaves whatever its target."""
    left = []
    if stack.spec.images.repository is not None:
        left.append(Left(f"images in {stack.spec.images.repository}", None, "delete their tags there; the registry isn't this stack's"))
    trackers = sorted({uri for run in stack.jobs if (uri := run.run.telemetry.mlflow_uri) and "://" in uri})
    left += [Left(f"runs in the MLflow server {uri}", None, "mlflow gc, or its own page") for uri in trackers]
    if stack.has_token:
        left.append(Left("the Hugging Face token at Hugging Face", 0.0, "revoke it there, if nothing else uses it"))
    file = PurePath(stack.source).name
    name = file.removeprefix("Pulumi.").rpartition(".")[0]
    left.append(
        Left(f"the stack's config {file}, and its empty state in Pulumi's backend", 0.0, f"pulumi stack rm {name}, which deletes both")
    )
    left.append(Left("results that were downloaded, in runs/", 0.0, "nothing to do: they are yours"))
    return left


def as_text(found: Remains) -> str:
    lines = ["goes for good, download what you need before:", *(f"  {what}" for what in found.gone), "stays:"]
    for one in found.left:
        cost = (
            "its owner's price"
            if one.usd_per_month is None
            else "free"
            if one.usd_per_month == 0
            else f"{one.usd_per_month:.2f} USD a month"
        )
        lines.append(f"  {one.what} ({cost}). Remedy: {one.remedy}")
    return "\n".join(lines)
