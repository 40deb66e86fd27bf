"""`ncdemo metrics`: a run's figures in Prometheus, through a Pushgateway."""

from pathlib import Path

import click

from ncdemo.cli.options import call

MODULE = "workloads.metrics.exporters"


def _gateway(function: click.decorators.FC) -> click.decorators.FC:
    return click.option("--gateway", metavar="URL", help="The Pushgateway [default: NCDEMO_PUSHGATEWAY].")(function)


def _to(gateway: str | None) -> tuple[str, ...]:
    return ("--gateway", gateway) if gateway else ()


@click.group("metrics")
def command() -> None:
    """Push a run's figures to a Prometheus Pushgateway, or take them away."""


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@_gateway
@click.option("--dry-run", is_flag=True, help="Print what would be pushed; push nothing.")
def export(run: Path, gateway: str | None, dry_run: bool) -> None:
    """Push a run's last sample and its figures. While the gateway is down they wait on disk (exit 75)."""
    call(MODULE, "export", str(run), *_to(gateway), *(("--dry-run",) if dry_run else ()))


@command.command()
@click.argument("run")
@_gateway
def retire(run: str, gateway: str | None) -> None:
    """Delete a run, given by folder or id, from the gateway."""
    call(MODULE, "retire", run, *_to(gateway))


@command.command()
@_gateway
def send(gateway: str | None) -> None:
    """Send what waits on disk since the gateway was down."""
    call(MODULE, "send", *_to(gateway))
