"""`ncdemo metrics`: a run's figures in Prometheus, through a Pushgateway, in Azure Monitor, or a run in MLflow."""

from pathlib import Path

import click

from ncdemo.cli.options import call

MODULE = "workloads.metrics.exporters"
MLFLOW_MODULE = "workloads.metrics.mlflow_log"
THE_SPECS = "the spec's"


def _gateway(function: click.decorators.FC) -> click.decorators.FC:
    return click.option("--gateway", metavar="URL", help="The Pushgateway [default: NCDEMO_PUSHGATEWAY].")(function)


def _azure(function: click.decorators.FC) -> click.decorators.FC:
    words = "To Azure Monitor instead, as this machine's Azure identity or with the key in APPLICATIONINSIGHTS_CONNECTION_STRING."
    return click.option("--azure-monitor", type=click.Choice(["identity", "key"]), help=words)(function)


def _to(gateway: str | None, azure_monitor: str | None = None) -> tuple[str, ...]:
    if gateway and azure_monitor:
        raise click.UsageError("--gateway and --azure-monitor are two places; give one of them.")
    return ("--gateway", gateway) if gateway else ("--azure-monitor", azure_monitor) if azure_monitor else ()


@click.group("metrics")
def command() -> None:
    """Push a run's figures to a Prometheus Pushgateway, Azure Monitor or MLflow, or take them away."""


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@_gateway
@_azure
@click.option("--mlflow", metavar="[URI]", is_flag=False, flag_value=THE_SPECS,
              help="All of the run to MLflow instead: URI, or where its spec says.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what would be pushed; push nothing.")
def export(run: Path, gateway: str | None, azure_monitor: str | None, mlflow: str | None, dry_run: bool) -> None:
    """Push a run's last sample and its figures. While nobody takes them they wait on disk (exit 75).

    To MLflow go its spec, metrics of every step, files and weights, whenever that is; a run that is there already is updated.
    """
    if mlflow:
        if gateway or azure_monitor or dry_run:
            raise click.UsageError("--mlflow goes alone; leave out --gateway, --azure-monitor and --dry-run.")
        call(MLFLOW_MODULE, str(run), *(() if mlflow == THE_SPECS else ("--uri", mlflow)))
        return
    call(MODULE, "export", str(run), *_to(gateway, azure_monitor), *(("--dry-run",) if dry_run else ()))


@command.command()
@click.argument("run")
@_gateway
def retire(run: str, gateway: str | None) -> None:
    """Delete a run, given by folder or id, from the gateway."""
    call(MODULE, "retire", run, *_to(gateway))


@command.command()
@_gateway
@_azure
def send(gateway: str | None, azure_monitor: str | None) -> None:
    """Send what waits on disk since it could not go."""
    call(MODULE, "send", *_to(gateway, azure_monitor))
