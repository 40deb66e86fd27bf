"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def call(module: str, *args: str) -> None:
    """Run a module of the workloads to its end, as ncdemo.cli.launch does; imported when it is called, which keeps `--help` quick."""
    from ncdemo.cli import launch

    launch.call(module, *args)


def spec_options(function: F) -> F:
    """Add -c FILE, --set KEY=VALUE and --dry-run."""
    function = click.option("--dry-run", is_flag=True, help="Print the resolved spec and the command; start nothing.")(function)
    function = click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. --set train.max_steps=20."
    )(function)
    return click.option("-c", "--config", required=True, metavar="FILE", help="The spec, a YAML file.")(function)
