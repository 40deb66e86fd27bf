"""`ncdemo doctor`: what is wrong here, in the Azure subscription and in the cluster, with the command that mends each finding.

ncdemo doctor
ncdemo doctor azure aks-dev --region eastus --region spaincentral
ncdemo doctor cluster aks-dev
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ncdemo.cli.doctor_cluster import cluster

# Nothing of ncdemo.spec is imported here: it would cost `--help` a quarter of a second.
if TYPE_CHECKING:
    from ncdemo.infra.subscription.ask import Credential
    from ncdemo.infra.subscription.region import Region
    from ncdemo.spec.finding import Finding

json_option = click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")


@click.group("doctor", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_data: bool) -> None:
    """Say what is wrong, and what mends it: without a command, on this machine. Exit 1 where something fails."""
    if context.invoked_subcommand is None:
        from ncdemo.cli.doctor_local import local

        say(local(), as_data)


def say(findings: "list[Finding]", as_data: bool, **more: object) -> None:
    """Print findings, and exit 1 if one of them is a failure."""
    from ncdemo.spec.finding import as_text, failed

    click.echo(json.dumps({"findings": [asdict(one) for one in findings], **more}, indent=2) if as_data else as_text(findings))
    sys.exit(1 if failed(findings) else 0)


@command.command("azure")
@click.argument("stack", metavar="[STACK]", required=False)
@click.option(
    "--region", "regions", multiple=True, metavar="NAME", help="Judge this region; repeat it to rank several [default: the stack's]."
)
@click.option("--subscription", metavar="ID", help="[default: ARM_SUBSCRIPTION_ID, else the Azure CLI's]")
@json_option
def azure(stack: str | None, regions: tuple[str, ...], subscription: str | None, as_data: bool) -> None:
    """Ask Azure whether a stack can be made: login, providers, sizes, quota, spot's odds, prices. Changes nothing.

    Without STACK: one spot node with one H100 on AKS. What Azure doesn't say is unknown. Exit 1 where something fails.
    """
    from ncdemo.cli.stack import stack_file
    from ncdemo.infra.subscription.check import examine
    from ncdemo.spec.stack import StackSpec
    from ncdemo.spec.stack_file import load_stack

    loaded = load_stack(stack_file(stack)) if stack else None
    if loaded and loaded.spec.target == "kubernetes":
        raise loaded.mistake(("target",), "kubernetes makes nothing on Azure, so there is nothing to ask there; use aks or vm")
    names = [region_name(region) for region in regions]
    found = examine(loaded.spec if loaded else StackSpec(), login, names, subscription)
    if len(found.regions) > 1 and not as_data:
        click.echo(ranking(found.regions))
    say(list(found.findings), as_data, regions=[{**asdict(one), "findings": len(one.findings)} for one in found.regions])


def region_name(text: str) -> str:
    """Return a region as Azure's interfaces name it, from that or from its title, e.g. East US."""
    from ncdemo.spec.base import SpecError

    name = text.lower().replace(" ", "")
    if not re.fullmatch(r"[a-z]{2,}[a-z0-9]*", name):
        raise SpecError(f"--region {text!r}: isn't a region's name; write e.g. eastus, as `az account list-locations -o table` does")
    return name


def login() -> "Credential":
    """Return whatever logs in here: variables, workload identity, a managed identity, the Azure CLI."""
    import logging

    from azure.identity import DefaultAzureCredential

    # What each way tried is a page; the finding says what to do.
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    return DefaultAzureCredential()


def ranking(regions: "Sequence[Region]") -> str:
    lines = ["regions, the best first"]
    for place, one in enumerate(regions, 1):
        fails = sum(finding.status == "fail" for finding in one.findings)
        spot = f", spot {one.spot_usd_per_h:.2f}" if one.spot_usd_per_h is not None else ""
        price = "price unknown" if one.full_usd_per_h is None else f"{one.full_usd_per_h:.2f} USD/h{spot}"
        odds = f"placement {one.placement or 'unknown'}, evictions {one.eviction or 'unknown'}"
        lines.append(f"  {place}. {one.name:<18} {f'{fails} failures' if fails else 'possible':<12} {odds}, {price}")
    return "\n".join([*lines, ""])


@command.command("env")
@json_option
def env(as_data: bool) -> None:
    """Compare the installed packages with uv.lock, for the extras that this environment was made with. Exit 1 where they differ."""
    from ncdemo.cli.environment import differences, expected, recorded
    from ncdemo.spec.paths import PACKAGE

    made = recorded(Path(sys.prefix))
    wanted, source = expected(made, PACKAGE)
    found = differences(wanted, made)
    what = f"{made.torch}; {' '.join(made.extras) or 'base'}"
    if as_data:
        data = {
            "environment": sys.prefix,
            "torch": made.torch,
            "extras": list(made.extras),
            "dev": made.dev,
            "compared_with": source,
            "packages": len(wanted),
            "differences": [vars(one) for one in found],
        }
        click.echo(json.dumps(data, indent=2))
    elif found:
        click.echo("\n".join(f"{one.package}: {one.says}. Remedy: {one.remedy}" for one in found))
        click.echo(f"{sys.prefix} ({what}): {len(found)} differences from {source}, which names {len(wanted)} packages")
    else:
        click.echo(f"{sys.prefix} ({what}): all {len(wanted)} packages are those of {source}")
    sys.exit(1 if found else 0)


command.add_command(cluster)
