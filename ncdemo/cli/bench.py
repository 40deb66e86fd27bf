"""`ncdemo bench`: measure inference engines as a spec says, on this machine."""

import click

from ncdemo.cli.launch import follow, new_run_folder, prepare
from ncdemo.cli.options import spec_options
from ncdemo.spec import BenchSpec, load_spec


@click.group("bench")
def command() -> None:
    """Benchmark inference engines as a spec says."""


@command.command()
@spec_options
def run(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Measure every engine x model x concurrency of a spec. Prints the run's folder."""
    spec = load_spec(config, BenchSpec, overrides)
    follow(prepare(spec, new_run_folder(spec.name)), dry_run)
