"""`ncdemo doctor`: what is wrong here and in the Azure subscription, with the command that mends each finding.

ncdemo doctor
ncdemo doctor azure aks-dev --region eastus --region spaincentral
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from ncdemo.spec.finding import Finding, as_text, failed
from ncdemo.spec.paths import PACKAGE

json_option = click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")


@click.group("doctor", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_data: bool) -> None:
    """Say what is wrong, and what mends it: without a command, on this machine. Exit 1 where something fails."""
    if context.invoked_subcommand is None:
        from ncdemo.cli.doctor_local import local

        say(local(), as_data)


def say(findings: list[Finding], as_data: bool, **more: object) -> None:
    """Print findings, and exit 1 if one of them is a failure."""
    click.echo(json.dumps({"findings": [asdict(one) for one in findings], **more}, indent=2) if as_data else as_text(findings))
    sys.exit(1 if failed(findings) else 0)


@command.command("env")
@json_option
def env(as_data: bool) -> None:
    """Compare the installed packages with uv.lock, for the extras that this environment was made with. Exit 1 where they differ."""
    from ncdemo.cli.environment import differences, expected, recorded

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
