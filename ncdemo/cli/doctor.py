"""`ncdemo doctor`: whether this environment holds what uv.lock says, by name and version, with what mends each difference.

ncdemo doctor env
"""

import json
import sys
from pathlib import Path

import click

from ncdemo.cli.environment import Difference, differences, expected, recorded
from ncdemo.spec.paths import PACKAGE


@click.group("doctor")
def command() -> None:
    """Say what is wrong on this machine, and what mends it."""


@command.command("env")
@click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")
def env(as_data: bool) -> None:
    """Compare the installed packages with uv.lock, for the extras that this environment was made with. Exit 1 where they differ."""
    made = recorded(Path(sys.prefix))
    wanted, source = expected(made, PACKAGE)
    found = differences(wanted, made)
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
    else:
        click.echo(as_text(found, len(wanted), source, f"{made.torch}; {' '.join(made.extras) or 'base'}"))
    sys.exit(1 if found else 0)


def as_text(found: list[Difference], packages: int, source: str, what: str) -> str:
    if not found:
        return f"{sys.prefix} ({what}): all {packages} packages are those of {source}"
    lines = [f"{one.package}: {one.says}. Remedy: {one.remedy}" for one in found]
    return "\n".join([*lines, f"{sys.prefix} ({what}): {len(found)} differences from {source}, which names {packages} packages"])
